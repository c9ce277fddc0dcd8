"""What an event of the local log means to each audience.

For: the events of the export logs. Not for: who may read them (etcd's users and roles). Invariants:
an audience that folds its export log holds exactly what is offered to it (`standpoint.as_seen_by`);
nothing of what isn't, no name of an audience and no idempotency key is in it; its seqs have no gaps
(design, I17).

Rules:
- A service is offered to an audience while it is `global`, not `shared: false`, and names it in
  `export.audiences`; an audience is written while the cluster names it in `audiences`.
- Becoming offered exports a thing whole, a service with all its endpoints; ceasing to be is a
  removal, which takes the endpoints along.
- What changes only for others is no event: a service that another audience gets as well, or no
  more, is for this one as it was.
- An audience that the cluster begins to write gets what the cluster says of itself and all that is
  offered to it; one that it writes no more gets the removal of all that it had.
- An idempotency key belongs to its caller and is never exported.
- Nodes, identities and policies say themselves which audiences may know of them, and aren't told
  which others may; one that no longer names the audience is removed there.
- Whom this cluster follows, and what it passes over, is exported to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from meshd.core.draft import Draft
from meshd.core.standpoint import V, told_info, told_service, told_thing, written
from meshd.model.cluster import ClusterInfo
from meshd.model.event import Event, EventType
from meshd.model.identity import Identity
from meshd.model.ids import EndpointKey, PolicyKey, ServiceKey
from meshd.model.node import Node
from meshd.model.policy import Policy
from meshd.model.schema import from_data, to_data
from meshd.model.service import Service

Exports = Mapping[str, Sequence[Event]]
"""Events by audience; an audience that is told nothing isn't in it."""


def export_events(before: Draft, event: Event) -> Exports:
    """The audiences' events for a local event; `before` is the state just before it."""
    event = replace(event, cause="")
    match event.type:
        case EventType.CLUSTER_SET:
            return _cluster_set(before, event)
        case EventType.SERVICE_SET:
            service = from_data(Service, event.data, "", "ignore")
            return _service_changed(before, event, service)
        case EventType.SERVICE_REMOVED:
            return _service_changed(before, event, None)
        case EventType.ENDPOINT_SET | EventType.ENDPOINT_REMOVED:
            service_of_it = before.service(EndpointKey.parse(event.key).service)
            return dict.fromkeys(_audiences(before, service_of_it), (event,))
        case EventType.NODE_SET | EventType.NODE_REMOVED:
            is_set = event.type == EventType.NODE_SET
            node = from_data(Node, event.data, "", "ignore") if is_set else None
            was, now = _offer_of(before, before.node(event.key)), _offer_of(before, node)
            return _changed(_as_told(event, now), EventType.NODE_REMOVED, was, now)
        case EventType.IDENTITY_SET | EventType.IDENTITY_REMOVED:
            is_set = event.type == EventType.IDENTITY_SET
            identity = from_data(Identity, event.data, "", "ignore") if is_set else None
            known = before.identity(int(event.key))
            was, now = _offer_of(before, known), _offer_of(before, identity)
            return _changed(_as_told(event, now), EventType.IDENTITY_REMOVED, was, now)
        case EventType.POLICY_SET | EventType.POLICY_REMOVED:
            is_set = event.type == EventType.POLICY_SET
            policy = from_data(Policy, event.data, "", "ignore") if is_set else None
            before_it = before.policy(PolicyKey.parse(event.key))
            was, now = _offer_of(before, before_it), _offer_of(before, policy)
            return _changed(_as_told(event, now), EventType.POLICY_REMOVED, was, now)
        case _:
            return {}


@dataclass(frozen=True, slots=True)
class _Offer:
    """A thing, as far as it concerns others: who has it, and what they are told of it."""

    audiences: frozenset[str]
    value: Service | Node | Identity | Policy | None


def _changed(
    event: Event, removed: EventType, was: _Offer, now: _Offer, members: Sequence[Event] = ()
) -> Exports:
    """What each audience is told of one thing. event: as those are told it who have it now.
    members: what comes along for those who didn't have it before.
    """
    gone = Event(removed, event.key, None, event.actor)
    told: dict[str, Sequence[Event]] = dict.fromkeys(was.audiences - now.audiences, (gone,))
    told |= dict.fromkeys(now.audiences - was.audiences, (event, *members))
    if was.value != now.value:
        told |= dict.fromkeys(now.audiences & was.audiences, (event,))
    return told


def _service_changed(before: Draft, event: Event, service: Service | None) -> Exports:
    key = ServiceKey.parse(event.key)
    was, now = _offer(before, before.service(key)), _offer(before, service)
    members: Sequence[Event] = ()
    if now.value is not None and now.audiences - was.audiences:
        members = tuple(_endpoints(before, key, event.actor))
    return _changed(_as_told(event, now), EventType.SERVICE_REMOVED, was, now, members)


def _as_told(event: Event, now: _Offer) -> Event:
    """The event as those are told it who have the thing now."""
    return event if now.value is None else replace(event, data=to_data(now.value))


def _offer_of(before: Draft, value: V | None) -> _Offer:
    """A node, an identity or a policy, which names its audiences itself."""
    if value is None:
        return _Offer(frozenset(), None)
    return _Offer(written(before.cluster()) & frozenset(value.audiences), told_thing(value))


def _offer(before: Draft, service: Service | None) -> _Offer:
    value = None if service is None else told_service(service)
    return _Offer(_audiences(before, service), value)


def _audiences(before: Draft, service: Service | None) -> frozenset[str]:
    """Who has a service."""
    if service is None or not service.is_offered:
        return frozenset()
    return written(before.cluster()) & frozenset(service.export.audiences)


def _endpoints(before: Draft, key: ServiceKey, actor: str) -> Iterator[Event]:
    for name, endpoint in sorted(before.endpoints_of(key), key=lambda item: item[0]):
        yield Event(EventType.ENDPOINT_SET, str(EndpointKey(key, name)), to_data(endpoint), actor)


def _cluster_set(before: Draft, event: Event) -> Exports:
    info, known = from_data(ClusterInfo, event.data, "", "ignore"), before.cluster()
    was, now = written(known), written(info)
    said = replace(event, data=to_data(told_info(info)))
    told: dict[str, Sequence[Event]] = {}
    for audience in was - now:
        told[audience] = tuple(_removals(before, audience, event.actor))
    for audience in now - was:
        told[audience] = (said, *_everything(before, audience, event.actor))
    if known is None or told_info(known) != told_info(info):
        told |= dict.fromkeys(was & now, (said,))
    return {audience: events for audience, events in told.items() if events}


def _everything(before: Draft, audience: str, actor: str) -> Iterator[Event]:
    """All that an audience is offered, for one that had nothing."""
    for key, service in _services_of(before, audience):
        yield Event(EventType.SERVICE_SET, str(key), to_data(told_service(service)), actor)
        yield from _endpoints(before, key, actor)
    for name, node in sorted(before.nodes().items()):
        if audience in node.audiences:
            yield Event(EventType.NODE_SET, name, to_data(told_thing(node)), actor)
    for number, identity in sorted(before.identities().items()):
        if audience in identity.audiences:
            yield Event(EventType.IDENTITY_SET, str(number), to_data(told_thing(identity)), actor)
    for policy_key, policy in sorted(before.policies().items()):
        if audience in policy.audiences:
            yield Event(EventType.POLICY_SET, str(policy_key), to_data(told_thing(policy)), actor)


def _removals(before: Draft, audience: str, actor: str) -> Iterator[Event]:
    """The removal of all that an audience is offered."""
    for key, _ in _services_of(before, audience):
        yield Event(EventType.SERVICE_REMOVED, str(key), None, actor)
    for name, node in sorted(before.nodes().items()):
        if audience in node.audiences:
            yield Event(EventType.NODE_REMOVED, name, None, actor)
    for number, identity in sorted(before.identities().items()):
        if audience in identity.audiences:
            yield Event(EventType.IDENTITY_REMOVED, str(number), None, actor)
    for policy_key, policy in sorted(before.policies().items()):
        if audience in policy.audiences:
            yield Event(EventType.POLICY_REMOVED, str(policy_key), None, actor)


def _services_of(before: Draft, audience: str) -> list[tuple[ServiceKey, Service]]:
    offered = (item for item in before.services() if item[1].is_offered_to(audience))
    return sorted(offered, key=lambda item: item[0])
