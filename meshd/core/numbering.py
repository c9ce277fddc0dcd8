"""Which numbers a cluster's identities have, and which is the next one free.

For: allocating without looking through all that were allocated. Not for: the identities themselves
(`state`). Invariants: it follows from the identities alone, whatever order they came and went in; a
numbering over another never writes to the one below.

A cluster has 65,280 numbers. Which are taken is a byte for each, so finding the lowest free one is
one search by the C library, of 65 KB at most: it takes a few microseconds, and so does copying
them for a draft. How many have the same labels is for peers' logs to say; a cluster's own have one.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshd.model.identity import LOCAL_MAX, LOCAL_MIN

LabelSet = frozenset[tuple[str, str]]


class Numbering:
    """The numbers in use, and by which labels. over: what lies below, as in a draft."""

    __slots__ = ("_by_labels", "_over", "_taken")

    def __init__(self, over: Numbering | None = None) -> None:
        self._over = over
        self._by_labels: dict[LabelSet, tuple[int, ...]] = {}
        self._taken = bytearray(LOCAL_MAX + 1) if over is None else over.copy_of_taken()

    def copy_of_taken(self) -> bytearray:
        """A byte for each local number: 1 where it is taken."""
        return self._taken[:]

    def numbers_of(self, labels: Mapping[str, str]) -> tuple[int, ...]:
        """The numbers that labels have, ascending; none for most sets of labels."""
        return self.numbers_of_set(frozenset(labels.items()))

    def numbers_of_set(self, labels: LabelSet) -> tuple[int, ...]:
        """The same of labels as a set."""
        found = self._by_labels.get(labels)
        if found is not None:
            return found
        return () if self._over is None else self._over.numbers_of_set(labels)

    def lowest_free(self) -> int | None:
        """The lowest local number that is free; None if all are taken."""
        found = self._taken.find(0, LOCAL_MIN)
        return None if found < 0 else found

    @property
    def is_empty(self) -> bool:
        """Whether there is no identity at all."""
        return 1 not in self._taken

    def take(self, number: int, labels: Mapping[str, str]) -> None:
        """Note that a free number now stands for these labels."""
        key = frozenset(labels.items())
        self._taken[number & LOCAL_MAX] = 1
        self._by_labels[key] = tuple(sorted((*self.numbers_of_set(key), number)))

    def free(self, number: int, labels: Mapping[str, str]) -> None:
        """Note that a number no longer stands for these labels."""
        key = frozenset(labels.items())
        self._taken[number & LOCAL_MAX] = 0
        left = tuple(other for other in self.numbers_of_set(key) if other != number)
        if left or self._over is not None:
            self._by_labels[key] = left
        else:
            del self._by_labels[key]

    def absorb(self, above: Numbering) -> None:
        """Take over what a numbering over this one says."""
        self._by_labels.update(above._by_labels)
        self._taken = above._taken
