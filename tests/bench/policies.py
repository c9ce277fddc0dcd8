"""What policies cost: one identity's change and one policy's, by how many there are of each.

For: the claim that cost follows what matches. Not for: etcd or the network: everything here is
folded and derived in this process. Each figure has its reference in the same run: the smallest
mesh.

The mesh: four clusters, in 100 namespaces; each policy is about one app of one namespace, lets in
two other apps of it on one port, and everything out. An identity has four labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from meshd.core.fold import fold_record
from meshd.core.policies import Policies
from meshd.core.state import ClusterState, Held
from meshd.model.codec import encode_record
from meshd.model.event import Event, EventType, Record
from meshd.model.identity import LOCAL_MIN, Identity, identity_number
from meshd.model.ids import GENESIS_HASH, ClusterName, Head, PolicyKey, Seq
from meshd.model.policy import NAMESPACE_LABEL, Policy
from meshd.model.schema import from_data, to_data
from tests.bench.tables import Row, log_ids, names, seconds

CLUSTERS = 4
NAMESPACES = 100
CHANGES = 500
BY_IDENTITIES = {"1k": (1_000, 1_000), "10k": (10_000, 1_000), "100k": (100_000, 1_000)}
BY_POLICIES = {"10": (10_000, 10), "100": (10_000, 100), "1,000": (10_000, 1_000)}


def labels(number: int, version: str = "1") -> dict[str, str]:
    """An identity's: one of ten apps to a namespace where there are 1,000."""
    return {
        NAMESPACE_LABEL: f"namespace-{number % NAMESPACES}",
        "app": f"app-{number // NAMESPACES}",
        "team": f"team-{number % 7}",
        "version": version,
    }


def policy(number: int) -> Policy:
    """One about the app of an identity."""
    app = number // NAMESPACES
    peers = [{"labels": {"labels": {"app": f"app-{(app + more) % 10}"}}} for more in (1, 2)]
    data = {
        "subjects": {"labels": {"app": f"app-{app}"}},
        "directions": ["egress", "ingress"],
        "ingress": [{"peers": peers, "ports": [{"port": 8080}]}],
        "egress": [{}],
    }
    return from_data(Policy, data, "")


def mesh(identities: int, policies: int) -> dict[ClusterName, ClusterState]:
    """So many of each, evenly over four clusters."""
    clusters = names(CLUSTERS)
    states = {cluster: ClusterState() for cluster in clusters}
    for number in range(identities):
        place, local = number % CLUSTERS, LOCAL_MIN + number // CLUSTERS
        key = identity_number(place + 1, local)
        value = Identity(labels=labels(number // CLUSTERS))
        states[clusters[place]].identities[key] = Held(value, Seq(number), 0, "bench")
    for number in range(policies):
        place, index = number % CLUSTERS, number // CLUSTERS
        name = PolicyKey(f"namespace-{index % NAMESPACES}", f"policy-{number}")
        held = Held(policy(index), Seq(number), 0, "bench")
        states[clusters[place]].policies[name] = held
    return states


class Changing:
    """A mesh in which one identity gets another version and back, and one policy another port."""

    def __init__(self, identities: int, policies: int) -> None:
        self._states = mesh(identities, policies)
        self._here = next(iter(self._states))
        self._log_id = log_ids(self._states)[self._here]
        self._policies = Policies()
        for name in self._states:
            self._policies.replace(name, self._states)
        self._head = Head(self._log_id, Seq(10_000_000), GENESIS_HASH)

    def _records(
        self, kind: EventType, key: str, data: Callable[[int], dict[str, object]]
    ) -> Iterator[Record]:
        for number in range(CHANGES):
            event = Event(kind, key, data(number), "bench")
            record = encode_record(self._head, number, [event])
            self._head = record.head
            yield record

    def of_identity(self) -> list[Record]:
        """An identity's changes."""
        key = str(identity_number(1, LOCAL_MIN))
        return list(
            self._records(
                EventType.IDENTITY_SET,
                key,
                lambda number: {"labels": labels(0, f"v{number % 2}")},
            )
        )

    def of_policy(self) -> list[Record]:
        """A policy's changes."""

        def data(number: int) -> dict[str, object]:
            value = to_data(policy(0))
            value["ingress"] = [{"ports": [{"port": 9000 + number % 2}]}]
            return value

        return list(self._records(EventType.POLICY_SET, "namespace-0/policy-0", data))

    def take(self, records: list[Record]) -> None:
        """All of them, one record after the other."""
        for record in records:
            changes = fold_record(self._states[self._here], record, self._here)
            delta = self._policies.apply(self._here, changes, self._states)
            if len(delta.identities) + len(delta.policies) != 1:
                raise AssertionError("a change is of one identity or of one policy")


def measure_policies(rounds: int) -> list[Row]:
    """One change, by the number of identities and by that of policies; sizes interleaved."""
    rows = []
    for title, sizes in (
        ("{}, {} identities and 1,000 policies", BY_IDENTITIES),
        ("{}, 10,000 identities and {} policies", BY_POLICIES),
    ):
        meshes = {name: Changing(*size) for name, size in sizes.items()}
        smallest = next(iter(sizes))
        for what in ("identity", "policy"):
            costs: dict[str, list[float]] = {name: [] for name in meshes}
            for _ in range(rounds + 1):
                for name, one in meshes.items():
                    records = one.of_identity() if what == "identity" else one.of_policy()
                    took_s = seconds(partial(one.take, records))
                    costs[name].append(took_s / CHANGES * 1e6)
            shown = "one identity's labels" if what == "identity" else "one policy's port"
            rows += [
                Row(title.format(shown, name), "µs", cost[1:], costs[smallest][1:], smallest)
                for name, cost in costs.items()
            ]
    whole_s = seconds(lambda: Changing(*BY_IDENTITIES["10k"]))
    made_s = seconds(lambda: mesh(*BY_IDENTITIES["10k"]))
    title = "1,000 policies over 10,000 identities from scratch"
    rows.append(Row(title, "s", [whole_s - made_s], [made_s], "making the values"))
    return rows
