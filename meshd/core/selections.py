"""Which identities each selector means, kept up to date at the cost of what matches.

For: policies' subjects and peers, of all clusters. Not for: what policies allow (`policies`,
`judge`). Invariants: a selection's members are exactly the identities that it matches; equal
selectors are one selection, however many policies have them; a selection exists while it is used.

An identity and a selection meet where both are filed: by a label that the selection requires, and
by its namespace where it has one. So an identity's change looks at the selections that ask for one
of its labels (or for all of its namespace), and a new selection at the identities that have its
rarest label. What no label narrows is filed by namespace, or under everything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import product

from meshd.model.cluster import ClusterInfo, ClusterSelector
from meshd.model.ids import ClusterName
from meshd.model.policy import (
    NAMESPACE_LABELS,
    NAMESPACE_NAME_LABEL,
    Expressions,
    LabelSelector,
    NamespaceSelector,
    Operator,
    namespace_labels_of,
    namespace_of,
)

IdentityKey = tuple[ClusterName, int]
Labels = Mapping[str, str]
Pair = tuple[str, str]
Place = tuple[str | None, Pair | None]
"""Where identities and selections are filed: a namespace or any, and a label or any."""
ALL_LABELS = LabelSelector()
ALL_CLUSTERS = ClusterSelector()

SelectionKey = tuple[object, ...]


class Selection:
    """Some of all identities. only: of this cluster alone, whatever `clusters` says. members: to
    be read, never written.
    """

    __slots__ = ("clusters", "key", "labels", "members", "namespaces", "only", "places", "users")

    def __init__(
        self,
        only: ClusterName | None,
        clusters: ClusterSelector,
        namespaces: NamespaceSelector,
        labels: LabelSelector,
    ) -> None:
        self.only = only
        self.clusters = clusters
        self.namespaces = namespaces
        self.labels = labels
        self.key: SelectionKey = (only, _key(clusters), _key(namespaces), _key(labels))
        self.members: set[IdentityKey] = set()
        self.places: tuple[Place, ...] = ()
        self.users = 0

    def matches(self, cluster: ClusterName, info: ClusterInfo | None, labels: Labels) -> bool:
        """Whether an identity is one of them. info: what its cluster says of itself."""
        namespace = namespace_of(labels)
        return (
            bool(namespace)
            and self.only in {None, cluster}
            and self.clusters.selects(cluster, info)
            and self.namespaces.selects(namespace, namespace_labels_of(labels))
            and self.labels.selects(labels)
        )

    @property
    def goes_by_info(self) -> bool:
        """Whether what clusters say of themselves decides who is a member."""
        return bool(self.clusters.regions or self.clusters.labels)


def _key(selector: ClusterSelector | NamespaceSelector | LabelSelector) -> SelectionKey:
    """A selector as a value that can be hashed, the same for equal ones."""
    labels = tuple(sorted(selector.labels.items()))
    if isinstance(selector, ClusterSelector):
        return selector.clusters, selector.not_clusters, selector.regions, labels
    names = selector.names if isinstance(selector, NamespaceSelector) else ()
    return names, labels, tuple(selector.expressions)


class Selections:
    """All selections that are used, and all identities."""

    def __init__(self) -> None:
        self._used: dict[SelectionKey, Selection] = {}
        self._filed: dict[Place, dict[Selection, None]] = {}
        self._identities: dict[Place, dict[IdentityKey, None]] = {}
        self._labels: dict[IdentityKey, Labels] = {}
        self._of: dict[IdentityKey, frozenset[Selection]] = {}
        self._infos: dict[ClusterName, ClusterInfo | None] = {}

    def identities(self) -> Mapping[IdentityKey, Labels]:
        """All identities with their labels."""
        return self._labels

    def of(self, identity: IdentityKey) -> frozenset[Selection]:
        """The selections that an identity is in."""
        return self._of.get(identity, frozenset())

    def use(self, wanted: Selection) -> Selection:
        """The selection that is equal to this one, found or begun; to be given back once."""
        found = self._used.get(wanted.key)
        if found is None:
            found = self._used[wanted.key] = wanted
            self._begin(wanted)
        found.users += 1
        return found

    def give_back(self, selection: Selection) -> None:
        """One who used a selection needs it no more."""
        selection.users -= 1
        if selection.users:
            return
        del self._used[selection.key]
        for place in selection.places:
            _take_out(self._filed, place, selection)
        for identity in selection.members:
            self._of[identity] -= {selection}

    def _begin(self, selection: Selection) -> None:
        selection.places = self._places_for(selection)
        for place in selection.places:
            self._filed.setdefault(place, {})[selection] = None
            found = self._labels if place == (None, None) else self._identities.get(place, {})
            for identity in found:
                if self._matches(selection, identity):
                    selection.members.add(identity)
        for identity in selection.members:
            self._of[identity] |= {selection}

    def _matches(self, selection: Selection, identity: IdentityKey) -> bool:
        cluster = identity[0]
        return selection.matches(cluster, self._infos.get(cluster), self._labels[identity])

    def _places_for(self, selection: Selection) -> tuple[Place, ...]:
        """Where those lie that a selection could match: of the labels that it asks for, the one
        that the fewest have now.
        """
        namespaces = _namespaces_named(selection.namespaces) or (None,)
        choices = [
            tuple(product(namespaces, pairs))
            for pairs in (
                *_required(selection.labels.labels, selection.labels.expressions, ""),
                *_required(
                    selection.namespaces.labels, selection.namespaces.expressions, NAMESPACE_LABELS
                ),
            )
        ]
        if not choices:
            return tuple((namespace, None) for namespace in namespaces)
        return min(choices, key=self._count)

    def _count(self, places: Collection[Place]) -> int:
        return sum(len(self._identities.get(place, ())) for place in places)

    def put(self, identity: IdentityKey, labels: Labels) -> frozenset[Selection]:
        """Add an identity, or let it have other labels; returns the selections that it came into or
        went out of.
        """
        if self._labels.get(identity) == labels:
            return frozenset()
        before = frozenset[Selection]()
        if identity in self._labels:
            before = self._unfile(identity)
        self._labels[identity] = labels
        for place in _places_of(labels):
            self._identities.setdefault(place, {})[identity] = None
        return self._enter(identity, before, self.matching(identity[0], labels))

    def matching(self, cluster: ClusterName, labels: Labels) -> frozenset[Selection]:
        """The selections that match an identity with these labels, whether or not there is one."""
        info = self._infos.get(cluster)
        return frozenset(
            selection
            for place in (*_places_of(labels), (None, None))
            for selection in self._filed.get(place, ())
            if selection.matches(cluster, info, labels)
        )

    def drop(self, identity: IdentityKey) -> frozenset[Selection]:
        """Remove an identity; returns the selections that it went out of."""
        before = self._unfile(identity)
        del self._labels[identity]
        self._enter(identity, before, frozenset())
        del self._of[identity]
        return before

    def set_info(self, cluster: ClusterName, info: ClusterInfo | None) -> set[IdentityKey]:
        """Take in what a cluster says of itself; returns the identities that came into other
        selections by that.
        """
        self._infos[cluster] = info
        moved = set()
        asking = [selection for selection in self._used.values() if selection.goes_by_info]
        for identity in [one for one in self._labels if one[0] == cluster] if asking else ():
            before = self._of[identity]
            now = {selection for selection in asking if self._matches(selection, identity)}
            if self._enter(identity, before, before - frozenset(asking) | now):
                moved.add(identity)
        return moved

    def _enter(
        self, identity: IdentityKey, before: frozenset[Selection], now: frozenset[Selection]
    ) -> frozenset[Selection]:
        for selection in before - now:
            selection.members.discard(identity)
        for selection in now - before:
            selection.members.add(identity)
        self._of[identity] = now
        return before ^ now

    def _unfile(self, identity: IdentityKey) -> frozenset[Selection]:
        for place in _places_of(self._labels[identity]):
            _take_out(self._identities, place, identity)
        return self._of[identity]


def _places_of(labels: Labels) -> Iterator[Place]:
    """Where an identity lies; nowhere if it is in no namespace, since nothing could find it."""
    namespace = namespace_of(labels)
    if namespace:
        yield namespace, None
        for pair in labels.items():
            yield namespace, pair
            yield None, pair


def _namespaces_named(selector: NamespaceSelector) -> tuple[str, ...]:
    """The namespaces of which a selector means some, where it names any."""
    name = selector.labels.get(NAMESPACE_NAME_LABEL)
    if name is not None:
        return (name,)
    named = (
        one.values
        for one in selector.expressions
        if one.operator is Operator.IN and one.key == NAMESPACE_NAME_LABEL
    )
    return selector.names or next(named, ())


def _required(labels: Labels, expressions: Expressions, prefix: str) -> Iterator[tuple[Pair, ...]]:
    """The labels that a selector requires, each as its alternatives. prefix: what comes before
    their names in an identity's own labels; a namespace's name is filed in another way.
    """
    for name, value in sorted(labels.items()):
        if not (prefix and name == NAMESPACE_NAME_LABEL):
            yield ((prefix + name, value),)
    for one in expressions:
        if one.operator is Operator.IN and not (prefix and one.key == NAMESPACE_NAME_LABEL):
            yield tuple((prefix + one.key, value) for value in one.values)


def _take_out(
    filed: dict[Place, dict[Selection, None]] | dict[Place, dict[IdentityKey, None]],
    place: Place,
    item: Selection | IdentityKey,
) -> None:
    found = filed[place]
    del found[item]  # type: ignore[arg-type]
    if not found:
        del filed[place]


def plain_members(
    selection: Selection,
    identities: Iterable[tuple[IdentityKey, Labels]],
    infos: Mapping[ClusterName, ClusterInfo | None],
) -> frozenset[IdentityKey]:
    """The members of a selection, found by looking at every identity."""
    return frozenset(
        identity
        for identity, labels in identities
        if selection.matches(identity[0], infos.get(identity[0]), labels)
    )
