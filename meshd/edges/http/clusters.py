"""`/v1/clusters` and `/v1/peers`: what is known of each cluster, and of the way to it.

For: reading both, and what a person may say about a peer to this one meshd. Not for: what holds for
the whole cluster, such as which peers there are (`peers`). Invariant: a cluster that isn't known
yet says so with nulls; it is never shown as empty.
"""

from __future__ import annotations

from aiohttp import web

from meshd.core.overlaps import Overlaps
from meshd.core.past import time_text
from meshd.core.state import ClusterState
from meshd.edges.http.answers import json_answer
from meshd.edges.http.as_of import AS_OF, item_fields, moment_fields, moment_of
from meshd.edges.http.limits import NODE
from meshd.edges.http.ranges import RANGES, found_in
from meshd.edges.http.requests import actor, check_query, cluster_name
from meshd.edges.http.wire import Json, range_condition
from meshd.model.errors import NotFoundError
from meshd.model.ids import ClusterName, Position
from meshd.model.peer import PeerCondition, Phase
from meshd.model.replica import Control, Pause, Resume, Resync
from meshd.runtime.node import Node
from meshd.runtime.past import Moment


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    return [
        web.get("/v1/clusters", list_clusters),
        web.get("/v1/clusters/{cluster}", get_cluster),
        web.get("/v1/peers", list_peers),
        web.get("/v1/peers/{cluster}", get_peer),
        web.post("/v1/peers/{cluster}/pause", pause_peer),
        web.post("/v1/peers/{cluster}/resume", resume_peer),
        web.post("/v1/peers/{cluster}/resync", resync_peer),
    ]


async def list_clusters(request: web.Request) -> web.Response:
    """This cluster and its peers, by name."""
    check_query(request, AS_OF)
    node, moment = request.app[NODE], await moment_of(request)
    if moment is not None:
        known = sorted({*moment.states, *moment.unknown})
        then = await found_in(moment.states)
        items = [_past_item(node, moment, name, then) for name in known]
        return json_answer({"items": items} | moment_fields(moment))
    names = sorted({node.projector.own, *node.peers.names()})
    found = await request.app[RANGES].found()
    items = [_cluster_item(node, name, found) for name in names]
    return json_answer({"items": items} | moment_fields(None))


async def get_cluster(request: web.Request) -> web.Response:
    """One cluster."""
    check_query(request, AS_OF)
    node, name = request.app[NODE], cluster_name(request)
    moment = await moment_of(request)
    if moment is not None:
        if name not in {*moment.states, *moment.unknown}:
            raise _unknown(name)
        then = await found_in(moment.states)
        return json_answer(_past_item(node, moment, name, then) | item_fields(moment))
    if name != node.projector.own and node.peers.condition(name) is None:
        raise _unknown(name)
    return json_answer(_cluster_item(node, name, await request.app[RANGES].found()))


async def list_peers(request: web.Request) -> web.Response:
    """All peers, by name."""
    check_query(request)
    node = request.app[NODE]
    return json_answer({"items": peer_items(node)})


async def get_peer(request: web.Request) -> web.Response:
    """One peer."""
    check_query(request)
    node, name = request.app[NODE], cluster_name(request)
    condition = node.peers.condition(name)
    if condition is None:
        raise _unknown(name)
    return json_answer(_peer_item(node, condition))


async def pause_peer(request: web.Request) -> web.Response:
    """Stop reading a peer until it is resumed."""
    return _control(request, Pause())


async def resume_peer(request: web.Request) -> web.Response:
    """Read a paused peer again; to one that isn't paused, look at once."""
    return _control(request, Resume())


async def resync_peer(request: web.Request) -> web.Response:
    """Read a peer's log anew beside what is served."""
    return _control(request, Resync())


def _control(request: web.Request, what: Control) -> web.Response:
    check_query(request)
    node, name = request.app[NODE], cluster_name(request)
    if not node.peers.control(name, what, actor(request)):
        raise _unknown(name)
    return json_answer({"peer": name, "asked": type(what).__name__.lower()}, status=202)


def peer_items(node: Node) -> list[Json]:
    """All peers as JSON objects, for status as well."""
    return [_peer_item(node, condition) for condition in node.peers.conditions()]


def _unknown(name: ClusterName) -> NotFoundError:
    return NotFoundError(f"there is no cluster {name!r} here")


def _cluster_item(node: Node, name: ClusterName, overlaps: Overlaps) -> Json:
    projector = node.projector
    head = projector.head(name)
    at = Position(name, head.log_id, head.seq) if head else None
    item = _item(node, name, projector.state(name), at)
    return item | {"phase": _phase(node, name)} | _conditions(overlaps, name)


def _past_item(node: Node, moment: Moment, name: ClusterName, overlaps: Overlaps) -> Json:
    """A phase is how a link is, which no log tells."""
    item = _item(node, name, moment.states.get(name), moment.at.get(name))
    return item | {"phase": None} | _conditions(overlaps, name)


def _conditions(overlaps: Overlaps, name: ClusterName) -> Json:
    return {
        "conditions": [range_condition(problem) for problem in overlaps.of(name)],
        "conditions_count": overlaps.counts.get(name, 0),
    }


def _item(node: Node, name: ClusterName, state: ClusterState | None, at: Position | None) -> Json:
    is_own = name == node.projector.own
    info = state.info.value if state and state.info else None
    own_id = node.descriptor.id if is_own else None
    return {
        "name": name,
        "id": info.id if info else own_id,
        "region": info.region if info else None,
        "zone": info.zone if info else None,
        "labels": dict(info.labels) if info else {},
        "self": is_own,
        "log_id": at.log_id if at else None,
        "seq": at.seq if at else None,
        "services": len(state.services) if state else None,
        "endpoints": sum(map(len, state.endpoints.values())) if state else None,
        "nodes": len(state.nodes) if state else None,
        "identities": len(state.identities) if state else None,
        "policies": len(state.policies) if state else None,
        "state": info.state if info else None,
        "weight": info.weight if info else None,
        "turned_percent": info.turned_percent if info else None,
        "announces": info.announces if info else None,
    }


def _phase(node: Node, name: ClusterName) -> Phase:
    if name == node.projector.own:
        return Phase.SYNCING if node.projector.local_head is None else Phase.READY
    condition = node.peers.condition(name)
    return condition.phase if condition else Phase.CONNECTING


def _peer_item(node: Node, condition: PeerCondition) -> Json:
    head, target, traffic = condition.head, condition.target, condition.traffic
    now_s = node.clock.monotonic_s()
    since_ms = node.clock.wall_ms() - int((now_s - condition.since_s) * 1000)
    is_same_log = head is not None and target is not None and head.log_id == target.log_id
    return {
        "name": condition.name,
        "phase": condition.phase,
        "reason": condition.reason,
        "since": time_text(since_ms),
        "standing": condition.standing,
        "log_id": head.log_id if head else None,
        "seq": head.seq if head else None,
        "head_seq": target.seq if target else None,
        "lag_events": max(0, target.seq - head.seq)
        if head is not None and target is not None and is_same_log
        else None,
        "heartbeat_age_s": _heartbeat_age_s(node, condition.name, now_s),
        "round_trip_s": _round_trip_s(node, condition.name),
        "unfresh_s": round(condition.unfresh_s, 3),
        "link": "up" if condition.is_linked else "down",
        "records_read": traffic.records_read,
        "records_duplicate": traffic.records_duplicate,
        "reconnects": max(0, traffic.links - 1),
        "forks": traffic.forks,
        "replica_seq": condition.replica_seq,
        "snapshots": traffic.snapshots,
        "slowed_s": round(condition.slowed_s, 3),
        "source": condition.source,
        "endpoints": condition.endpoints,
        "quarantined_seq": condition.quarantined_seq,
        "skipped": condition.skipped,
    }


def _round_trip_s(node: Node, name: ClusterName) -> float | None:
    """How long a read of its etcd takes; None while it was measured too seldom."""
    trips = (peer.round_trips.quickest_s for peer in node.peers if peer.name == name)
    quickest_s = next(trips, None)
    return None if quickest_s is None else round(quickest_s, 6)


def _heartbeat_age_s(node: Node, name: ClusterName, now_s: float) -> float | None:
    """How long ago the heartbeat was last seen to rise; None before it was."""
    beats = (peer.follower.state.beat_s for peer in node.peers if peer.name == name)
    beat_s = next(beats, None)
    return None if beat_s is None else round(max(0.0, now_s - beat_s), 3)
