"""The reference says what meshd's own derivation says, after any history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from chaos import raw, reference
from meshd.core.derive import derive
from meshd.core.fold import fold_record
from meshd.core.state import ClusterState
from meshd.model.event import Event, EventType, Record
from meshd.model.ids import GENESIS_HASH, ClusterName, LogId, Seq
from meshd.model.service import Affinity
from tests.chaos.rows import rows_of

CLUSTERS = ("a", "b", "c")
ports = st.sampled_from(
    [
        [],
        [{"port": 80}],
        [{"port": 80, "name": "h"}, {"port": 90}],
        [{"port": 90, "name": "h"}],
        [{"port": 80, "protocol": "UDP"}],
    ]
)
service_data = st.fixed_dictionaries(
    {"global": st.sampled_from([True, True, True, False])},
    optional={
        "shared": st.booleans() | st.none(),
        "ports": ports,
        "affinity": st.sampled_from([str(affinity) for affinity in Affinity]),
        "created_ms": st.integers(0, 2),
        "tiers": st.sampled_from(
            [
                [],
                [{"clusters": ["b"]}, {"clusters": ["a", "c"], "percent": 50}],
                [{"clusters": ["@local"]}, {"clusters": ["*"]}],
                [{"clusters": ["*"]}, {"clusters": ["b"]}],
                [{"clusters": ["nobody"]}, {"clusters": ["c"]}],
            ]
        ),
        "weight": st.sampled_from([0, 7, 100, 300]),
        "turned_percent": st.sampled_from([0, 33, 100]),
        "export": st.sampled_from(
            [
                {},
                {"clusters": {"not_clusters": ["a"]}},
                {"clusters": {"clusters": ["a", "b"]}},
                {"clusters": {"regions": ["r"]}},
            ]
        ),
        "import": st.sampled_from([{}, {"clusters": ["b"]}, {"labels": {"gold": "yes"}}]),
    },
)
info_data = st.fixed_dictionaries(
    {"id": st.just(1)},
    optional={
        "region": st.sampled_from(["r", "s"]),
        "zone": st.sampled_from(["z", "y"]),
        "labels": st.sampled_from([{}, {"gold": "yes", "team": "blue"}]),
        "state": st.sampled_from(["active", "draining", "maintenance"]),
        "weight": st.sampled_from([0, 50, 100]),
        "turned_percent": st.sampled_from([0, 50, 100]),
    },
)
endpoint_data = st.fixed_dictionaries(
    {"address": st.sampled_from(["10.0.0.1", "10.0.0.2"])},
    optional={
        "ready": st.booleans(),
        "serving": st.booleans() | st.none(),
        "terminating": st.booleans(),
        "weight": st.sampled_from([0, 1, 100]),
        "turned_percent": st.sampled_from([0, 7, 100]),
        "ports": ports,
        "zone": st.sampled_from(["", "z"]),
        "region": st.sampled_from(["", "r"]),
        "probed": st.sampled_from(["unknown", "passing", "failing", "flapping"]),
    },
)
# One name begins like the other: it must not take the other's endpoints along.
services = st.sampled_from(["shop/cart", "shop/cart2"])
endpoints = st.builds("{}/{}".format, services, st.sampled_from(["x", "y"]))


@dataclass
class Mesh:
    """Both readings of the same events."""

    states: dict[ClusterName, ClusterState] = field(default_factory=dict)
    plain: dict[str, dict[str, dict[str, object]]] = field(default_factory=dict)

    def say(self, cluster: str, kind: str, key: str, data: Mapping[str, object] | None) -> None:
        state = self.states.setdefault(ClusterName(cluster), ClusterState())
        event = Event(EventType(kind), key, data, "ann")
        seq = Seq(state.seq + 1)
        record = Record(LogId("a" * 32), seq, 0, GENESIS_HASH, (event,), b"", GENESIS_HASH)
        fold_record(state, record, ClusterName(cluster))
        raw.fold(self.plain.setdefault(cluster, {}), [kind, key, data])


Saying = tuple[str, str, str, Mapping[str, object] | None]
by = st.sampled_from(CLUSTERS)
sayings: st.SearchStrategy[Saying] = st.one_of(
    st.tuples(by, st.just("service.set"), services, service_data),
    st.tuples(by, st.just("endpoint.set"), endpoints, endpoint_data),
    st.tuples(by, st.just("endpoint.set"), endpoints, endpoint_data),
    st.tuples(by, st.just("service.removed"), services, st.none()),
    st.tuples(by, st.just("endpoint.removed"), endpoints, st.none()),
    st.builds(
        lambda name, data: (name, "cluster.set", name, {"name": name, **data}), by, info_data
    ),
)
# Most histories begin with a service in several clusters: there definitions reach across.
begun: st.SearchStrategy[tuple[Saying, ...]] = st.tuples(
    *(
        st.tuples(st.just(name), st.just(f"{noun}.set"), st.just(key), data)
        for name in CLUSTERS
        for noun, key, data in (
            ("service", "shop/cart", service_data),
            ("endpoint", "shop/cart/x", endpoint_data),
        )
    )
)


@settings(max_examples=150, deadline=None)
@given(begun=begun, said=st.lists(sayings, max_size=12))
@example(begun=(), said=[])
def test_the_reference_agrees(begun: tuple[Saying, ...], said: list[Saying]) -> None:
    mesh = Mesh()
    for saying in (*begun, *said):
        mesh.say(*saying)
    log_ids = dict.fromkeys(mesh.states, LogId("a" * 32))
    for name in mesh.states:
        derived = derive(name, mesh.states, log_ids)
        expected = {str(key): rows_of(service) for key, service in derived.items()}
        assert reference.table(str(name), mesh.plain) == expected
