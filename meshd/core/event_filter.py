"""Which events a reader wants.

For: the one filter of lists and streams. Not for: whose events they are, since every position of a
log is told per cluster (`cursor`). Invariants: pure; what passes depends on the event alone, so a
stream, its resumption and a list tell the same.

Rules:
- Kinds of conditions are joined by AND; values of one kind by OR, but labels by AND.
- A namespace is that of services, endpoints and policies by their names, and of identities by
  their label. Everything else is in none, and no event of an unknown type passes.
- A service is it and its endpoints.
- Labels are those that the event says. A removal says none: it passes, whatever the thing's were,
  so that nobody keeps what is gone; so does an identity's removal where a namespace is asked for. A
  thing that only loses a label isn't told: its new value hasn't got it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from meshd.model.errors import Problem, RejectedError, shown
from meshd.model.event import Event, EventType
from meshd.model.ids import ServiceKey, is_dns_label
from meshd.model.policy import NAMESPACE_LABEL

VALUES_MAX: Final = 64
"""Of one kind of condition; each is text that every subscriber's filter keeps."""

_NAMED: Final = frozenset({"service", "endpoint", "policy"})
"""The kinds of things whose name begins with a namespace."""
_OF_SERVICES: Final = frozenset({"service", "endpoint"})
_LABELLED: Final = frozenset({"service", "endpoint", "node", "identity", "policy"})
_REMOVED: Final = ".removed"

Labels = tuple[tuple[str, str | None], ...]
"""Each a name with its value, or None for any."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What is wanted; of each kind that is empty, all.

    types: without prefix. services: as `namespace/name`.
    """

    types: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    labels: Labels = ()

    def passes(self, event: Event) -> bool:
        """Whether the event is wanted."""
        return (
            (not self.types or event.type in self.types)
            and (not self.namespaces or self._is_in_namespace(event))
            and (not self.services or self._is_of_service(event))
            and (not self.labels or self._has_labels(event))
        )

    def _is_in_namespace(self, event: Event) -> bool:
        kind = event.type.partition(".")[0]
        if kind in _NAMED:
            return event.key.partition("/")[0] in self.namespaces
        if event.type == EventType.IDENTITY_REMOVED:
            return True
        return kind == "identity" and _labels_of(event).get(NAMESPACE_LABEL) in self.namespaces

    def _is_of_service(self, event: Event) -> bool:
        kind = event.type.partition(".")[0]
        return kind in _OF_SERVICES and "/".join(event.key.split("/")[:2]) in self.services

    def _has_labels(self, event: Event) -> bool:
        if event.type.partition(".")[0] not in _LABELLED:
            return False
        if event.type.endswith(_REMOVED):
            return True
        labels = _labels_of(event)
        return all(
            name in labels and (value is None or labels[name] == value)
            for name, value in self.labels
        )


ALL_EVENTS: Final = EventFilter()


def _labels_of(event: Event) -> Mapping[object, object]:
    """What a newer writer says may be anything."""
    labels = event.data.get("labels") if event.data is not None else None
    return labels if isinstance(labels, Mapping) else {}


def make_filter(
    *,
    types: Collection[str],
    namespaces: Collection[str],
    services: Collection[str],
    labels: Collection[tuple[str, str | None]],
    newer_types: Collection[str] = (),
) -> EventFilter:
    """Check what a reader asks for; raises RejectedError with all that is wrong.

    newer_types: which the logs at hand hold though this version doesn't fold them.
    """
    given = {"type": types, "namespace": namespaces, "service": services, "label": labels}
    problems = [
        Problem(f"?{name}", f"is given {len(values)} times", f"at most {VALUES_MAX}")
        for name, values in given.items()
        if len(values) > VALUES_MAX
    ]
    known = sorted({*EventType, *newer_types})
    problems += [
        Problem("?type", f"{shown(name)} is no type of event here", f"known are {', '.join(known)}")
        for name in types
        if name not in known
    ]
    problems += [
        Problem("?namespace", f"{shown(name)} is no namespace", "write a DNS label")
        for name in namespaces
        if not is_dns_label(name)
    ]
    problems += [
        Problem("?service", f"{shown(name)} is no service", "write namespace/name")
        for name in services
        if not _is_service(name)
    ]
    if problems:
        raise RejectedError(tuple(problems))
    return EventFilter(
        frozenset(types), frozenset(namespaces), frozenset(services), tuple(_sorted(labels))
    )


def _sorted(labels: Collection[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Each once and in order, so that equal wishes are equal filters."""
    return sorted(set(labels), key=lambda label: (label[0], label[1] is not None, label[1] or ""))


def _is_service(text: str) -> bool:
    try:
        ServiceKey.parse(text)
    except RejectedError:
        return False
    return True
