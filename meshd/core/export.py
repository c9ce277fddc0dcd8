"""What an event of the local log means to an audience.

For: the events of an export log. Not for: who may read it (etcd's users and roles). Invariants: an
audience that folds its export log holds exactly the offered services and their endpoints; nothing
of what isn't offered is in it, and its seqs have no gaps (design, I17).

Rules:
- A service is offered while it is `global` and not `shared: false`.
- Becoming offered exports the service with all its endpoints; ceasing to be is a removal, which
  takes the endpoints along.
- An idempotency key belongs to its caller and is never exported.
- Nodes and identities say themselves which audiences may know of them, and aren't told which
  others may; one that no longer names the audience is removed there.
- Whom this cluster follows, and what it passes over, is exported to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from meshd.core.draft import Draft
from meshd.model.event import Event, EventType
from meshd.model.identity import Identity
from meshd.model.ids import EndpointKey, ServiceKey
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.model.node import Node
from meshd.model.schema import from_data, to_data
from meshd.model.service import Service


def export_events(before: Draft, event: Event) -> tuple[Event, ...]:
    """The audience's events for a local event; `before` is the state just before it."""
    return tuple(replace(exported, cause="") for exported in _exported(before, event))


def _exported(before: Draft, event: Event) -> Iterator[Event]:
    match event.type:
        case EventType.CLUSTER_SET:
            yield event
        case EventType.SERVICE_SET:
            yield from _service_set(before, event)
        case EventType.SERVICE_REMOVED:
            if _is_offered(before, ServiceKey.parse(event.key)):
                yield event
        case EventType.ENDPOINT_SET | EventType.ENDPOINT_REMOVED:
            if _is_offered(before, EndpointKey.parse(event.key).service):
                yield event
        case EventType.NODE_SET:
            node = from_data(Node, event.data, "", "ignore")
            yield from _told(event, before.node(event.key), node, EventType.NODE_REMOVED)
        case EventType.NODE_REMOVED:
            yield from _told(event, before.node(event.key), None, EventType.NODE_REMOVED)
        case EventType.IDENTITY_SET | EventType.IDENTITY_REMOVED:
            known = before.identity(int(event.key))
            is_set = event.type == EventType.IDENTITY_SET
            identity = from_data(Identity, event.data, "", "ignore") if is_set else None
            yield from _told(event, known, identity, EventType.IDENTITY_REMOVED)
        case _:
            return


def _told(
    event: Event, known: Node | Identity | None, value: Node | Identity | None, removal: EventType
) -> Iterator[Event]:
    """What an audience hears of a value that names its audiences itself."""
    before, after = _as_told(known), _as_told(value)
    if after is not None and after != before:
        yield replace(event, data=after)
    elif after is None and before is not None:
        yield Event(removal, event.key, None, event.actor)


def _as_told(value: Node | Identity | None) -> dict[str, object] | None:
    """The value as an audience sees it; None if it doesn't."""
    if value is None or DEFAULT_AUDIENCE not in value.audiences:
        return None
    return {name: data for name, data in to_data(value).items() if name != "audiences"}


def _service_set(before: Draft, event: Event) -> Iterator[Event]:
    key = ServiceKey.parse(event.key)
    was_offered = _is_offered(before, key)
    if not from_data(Service, event.data, "", "ignore").is_offered:
        if was_offered:
            yield Event(EventType.SERVICE_REMOVED, event.key, None, event.actor)
        return
    yield event
    if not was_offered:
        for name, endpoint in sorted(before.endpoints_of(key), key=lambda item: item[0]):
            key_text = str(EndpointKey(key, name))
            yield Event(EventType.ENDPOINT_SET, key_text, to_data(endpoint), event.actor)


def _is_offered(state: Draft, key: ServiceKey) -> bool:
    service = state.service(key)
    return service is not None and service.is_offered
