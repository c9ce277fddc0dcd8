"""Policies of all clusters over the identities of all clusters, kept up to date.

For: which policies decide for an identity, and whom their rules mean, at the cost of what changed.
Not for: what comes of that for a connection (`judge`) or for all (`reach`). Invariants: equals
`plain_view` of the same states; a policy decides for identities of its own cluster alone (design,
I8); nothing is ever multiplied out: what is held grows with the policies' selectors and with the
identities that each of them matches, never with pairs of identities.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from meshd.core.fold import Change, IdentityChange, InfoChange, PolicyChange
from meshd.core.selections import (
    ALL_CLUSTERS,
    ALL_LABELS,
    IdentityKey,
    Selection,
    Selections,
    plain_members,
)
from meshd.core.state import ClusterState, Held
from meshd.model.ids import ClusterName, PolicyKey
from meshd.model.policy import Direction, NamespaceSelector, Policy, Rule, RulePeer

PolicyRef = tuple[ClusterName, PolicyKey]
States = Mapping[ClusterName, ClusterState]
Members = frozenset[IdentityKey]


@dataclass(frozen=True, slots=True)
class RuleInForce:
    """A rule with whom it means. selections: of its peers, those that are identities."""

    rule: Rule
    selections: frozenset[Selection]


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """A policy with whom it means."""

    cluster: ClusterName
    key: PolicyKey
    held: Held[Policy]
    subjects: Selection
    rules: Mapping[Direction, tuple[RuleInForce, ...]]

    @property
    def ref(self) -> PolicyRef:
        """Which policy it is."""
        return self.cluster, self.key

    def isolates(self, direction: Direction) -> bool:
        """Whether what no policy allows in this direction is denied."""
        return direction in self.held.value.directions


@dataclass(frozen=True, slots=True)
class PoliciesDelta:
    """What changed: the policies that came, went or say something else, and the identities that
    came, went or are in other selections than before.
    """

    policies: frozenset[PolicyRef]
    identities: frozenset[IdentityKey]


class ConditionType(StrEnum):
    """What is to be known of a policy that was accepted."""

    SELECTS_NOTHING = "SelectsNothing"
    UNKNOWN_CLUSTER = "UnknownCluster"


@dataclass(frozen=True, slots=True)
class PolicyCondition:
    """One condition of a policy."""

    type: ConditionType
    message: str


def subjects_of(cluster: ClusterName, key: PolicyKey, policy: Policy) -> Selection:
    """For whom a policy decides: identities of its own cluster, in its own namespace."""
    namespaces = NamespaceSelector(names=(key.namespace,))
    return Selection(cluster, ALL_CLUSTERS, namespaces, policy.subjects)


def meant_by(key: PolicyKey, peer: RulePeer) -> Selection | None:
    """The identities that a peer of a policy's rule means; None if it means none."""
    if not peer.is_of_identities:
        return None
    return Selection(
        None,
        peer.clusters or ALL_CLUSTERS,
        peer.namespaces or NamespaceSelector(names=(key.namespace,)),
        peer.labels or ALL_LABELS,
    )


class Policies:
    """All of them. The states are those that everything else is made of."""

    def __init__(self) -> None:
        self._selections = Selections()
        self._policies: dict[PolicyRef, PolicyInForce] = {}
        self._deciding: dict[Selection, dict[PolicyRef, PolicyInForce]] = {}
        self._identities: dict[ClusterName, set[int]] = {}
        self._named: dict[ClusterName, set[PolicyKey]] = {}

    # What is known.

    def policy(self, ref: PolicyRef) -> PolicyInForce | None:
        """One policy, or None."""
        return self._policies.get(ref)

    def identities(self) -> Mapping[IdentityKey, Mapping[str, str]]:
        """All identities with their labels."""
        return self._selections.identities()

    def selections_of(self, identity: IdentityKey) -> frozenset[Selection]:
        """The selections that an identity is in: all that policies can tell of it."""
        return self._selections.of(identity)

    def selections_for(
        self, cluster: ClusterName, labels: Mapping[str, str]
    ) -> frozenset[Selection]:
        """Those that an identity of a cluster would be in, if it had these labels."""
        return self._selections.matching(cluster, labels)

    def deciding_for(self, selections: Iterable[Selection]) -> list[PolicyInForce]:
        """The policies that decide for whoever is in these selections, sorted."""
        found = [
            policy
            for selection in selections
            for policy in self._deciding.get(selection, {}).values()
        ]
        return sorted(found, key=lambda policy: policy.ref)

    def conditions(self, ref: PolicyRef) -> Iterator[PolicyCondition]:
        """What is to be known of a policy."""
        policy = self._policies[ref]
        if not policy.subjects.members:
            what = "no identity of its cluster is selected now; it decides once there is one"
            yield PolicyCondition(ConditionType.SELECTS_NOTHING, what)
        value = policy.held.value
        named = {
            name
            for direction in Direction
            for rule in value.rules(direction)
            for peer in rule.peers
            if peer.clusters is not None
            for name in peer.clusters.names()
        }
        for name in sorted(named - self._named.keys()):
            what = f"nothing is known here of a cluster {name}, which it names"
            yield PolicyCondition(ConditionType.UNKNOWN_CLUSTER, what)

    def view(self) -> dict[PolicyRef, tuple[Members, tuple[tuple[Members, ...], ...]]]:
        """All of it as plain values, for comparing: whom each policy and each rule of it means."""
        return {
            ref: (
                frozenset(policy.subjects.members),
                tuple(
                    tuple(_members(rule) for rule in policy.rules[direction])
                    for direction in Direction
                ),
            )
            for ref, policy in self._policies.items()
        }

    # What changes.

    def apply(
        self, cluster: ClusterName, changes: Iterable[Change], states: States
    ) -> PoliciesDelta:
        """Take in what folding did to one cluster's state; `states` is as it is afterwards."""
        state = states[cluster]
        policies: set[PolicyRef] = set()
        identities: set[IdentityKey] = set()
        for change in changes:
            if isinstance(change, IdentityChange):
                self._take_identity(cluster, change.number, state, identities)
            elif isinstance(change, PolicyChange):
                self._take_policy((cluster, change.key), state.policies.get(change.key), policies)
            elif isinstance(change, InfoChange):
                info = state.info.value if state.info is not None else None
                identities |= self._selections.set_info(cluster, info)
        return PoliciesDelta(frozenset(policies), frozenset(identities))

    def replace(self, cluster: ClusterName, states: States) -> PoliciesDelta:
        """Compare with a cluster's state that is another as a whole, new, or no longer there."""
        state = states.get(cluster)
        numbers = self._identities.setdefault(cluster, set())
        keys = self._named.setdefault(cluster, set())
        present = state if state is not None else ClusterState()
        info = present.info.value if present.info is not None else None
        policies: set[PolicyRef] = set()
        identities = self._selections.set_info(cluster, info)
        for number in numbers | present.identities.keys():
            self._take_identity(cluster, number, present, identities)
        for key in keys | present.policies.keys():
            self._take_policy((cluster, key), present.policies.get(key), policies)
        if state is None:
            del self._identities[cluster], self._named[cluster]
        return PoliciesDelta(frozenset(policies), frozenset(identities))

    def _take_identity(
        self, cluster: ClusterName, number: int, state: ClusterState, changed: set[IdentityKey]
    ) -> None:
        key, held = (cluster, number), state.identities.get(number)
        numbers = self._identities.setdefault(cluster, set())
        before = self._selections.identities().get(key)
        if held is not None:
            self._selections.put(key, held.value.labels)
            numbers.add(number)
        elif number in numbers:
            self._selections.drop(key)
            numbers.discard(number)
        if before != (held.value.labels if held is not None else None):
            changed.add(key)

    def _take_policy(
        self, ref: PolicyRef, held: Held[Policy] | None, changed: set[PolicyRef]
    ) -> None:
        before = self._policies.get(ref)
        if (before.held if before is not None else None) == held:
            return
        # The new one first, so that what both use isn't made anew.
        after = self._in_force(ref, held) if held is not None else None
        if before is not None:
            self._retire(before)
        if after is not None:
            self._policies[ref] = after
            self._deciding.setdefault(after.subjects, {})[ref] = after
            self._named.setdefault(ref[0], set()).add(ref[1])
        changed.add(ref)

    def _in_force(self, ref: PolicyRef, held: Held[Policy]) -> PolicyInForce:
        cluster, key = ref
        subjects = self._selections.use(subjects_of(cluster, key, held.value))
        rules = {
            direction: tuple(
                RuleInForce(rule, frozenset(self._meant(key, rule)))
                for rule in held.value.rules(direction)
            )
            for direction in Direction
        }
        return PolicyInForce(cluster, key, held, subjects, rules)

    def _meant(self, key: PolicyKey, rule: Rule) -> set[Selection]:
        """The selections of a rule's peers, each used once."""
        wanted = (meant_by(key, peer) for peer in rule.peers)
        unique = {one.key: one for one in wanted if one is not None}
        return {self._selections.use(one) for one in unique.values()}

    def _retire(self, policy: PolicyInForce) -> None:
        del self._policies[policy.ref]
        self._named[policy.cluster].discard(policy.key)
        deciding = self._deciding[policy.subjects]
        del deciding[policy.ref]
        if not deciding:
            del self._deciding[policy.subjects]
        self._selections.give_back(policy.subjects)
        for rules in policy.rules.values():
            for rule in rules:
                for selection in rule.selections:
                    self._selections.give_back(selection)


def _members(rule: RuleInForce) -> Members:
    return frozenset[IdentityKey]().union(*(one.members for one in rule.selections))


def policies_of(states: States) -> Policies:
    """All policies of some states, from scratch."""
    policies = Policies()
    for cluster in states:
        policies.replace(cluster, states)
    return policies


def plain_view(
    states: States,
) -> dict[PolicyRef, tuple[Members, tuple[tuple[Members, ...], ...]]]:
    """The same as `Policies.view`, by looking at every identity for every selector."""
    identities = [
        ((cluster, number), held.value.labels)
        for cluster, state in states.items()
        for number, held in state.identities.items()
    ]
    infos = {name: state.info.value if state.info else None for name, state in states.items()}

    def members(selection: Selection | None) -> Members:
        return plain_members(selection, identities, infos) if selection else frozenset()

    return {
        (cluster, key): (
            members(subjects_of(cluster, key, held.value)),
            tuple(
                tuple(
                    frozenset[IdentityKey]().union(
                        *(members(meant_by(key, peer)) for peer in rule.peers)
                    )
                    for rule in held.value.rules(direction)
                )
                for direction in Direction
            ),
        )
        for cluster, state in states.items()
        for key, held in state.policies.items()
    }
