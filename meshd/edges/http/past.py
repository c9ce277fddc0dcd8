"""`/v1/tables/diff` and `/v1/history`: what changed, and who changed it.

For: comparing two moments, and one thing's events. Not for: a table of one moment (`tables`), nor a
log's events in order (`events`). Invariant: both name exactly what they were made of, and where the
next page begins.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from meshd.core.past import time_text
from meshd.core.table_diff import BackendDiff, FieldChange, ServiceDiff, diff_tables
from meshd.core.telling import EVENT_TYPE_PREFIX, Json, origin_fields
from meshd.core.trail import Step, Subject
from meshd.edges.http.answers import json_answer, long_answer, own_state
from meshd.edges.http.as_of import moment_of, table_at
from meshd.edges.http.diffs import fields_shown
from meshd.edges.http.limits import NODE
from meshd.edges.http.problems import BAD_REQUEST, HttpProblem
from meshd.edges.http.requests import bad_query, check_query, query_choice, query_number
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, Position, format_vector, parse_vector

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    return [
        web.get("/v1/tables/diff", get_diff),
        web.get("/v1/history/{kind}/{name:.+}", get_history),
    ]


async def get_diff(request: web.Request) -> web.Response:
    """What is different between the tables of two moments."""
    check_query(request, "from", "to", "perspective", "namespace")
    node, query = request.app[NODE], request.query
    own_state(node)
    old = await moment_of(request, "from")
    if old is None:
        raise bad_query("from", "is missing: a time or a vector")
    new = await moment_of(request, "to") or node.past.now()
    perspective, namespace = query.get("perspective"), query.get("namespace")
    before = await table_at(node, old, perspective)
    after = await table_at(node, new, perspective)
    fields: Json = {
        "perspective": before.perspective,
        "from": format_vector(old.at),
        "to": format_vector(new.at),
        "unknown_from": old.unknown,
        "unknown_to": new.unknown,
        "digest_from": before.digest,
        "digest_to": after.digest,
    }

    def make() -> Json:
        found = diff_tables(before.services, after.services)
        chosen = (one for one in found if namespace in {None, one.key.namespace})
        return fields | {"services": [_service(one) for one in chosen]}

    return await long_answer(make)


def _service(diff: ServiceDiff) -> Json:
    return {
        "namespace": diff.key.namespace,
        "name": diff.key.name,
        "change": diff.kind,
        "fields": fields_shown(diff.fields),
        "backends": [_backend(backend) for backend in diff.backends],
    }


def _backend(diff: BackendDiff) -> Json:
    return {
        "cluster": diff.cluster,
        "name": diff.name,
        "change": diff.kind,
        "fields": fields_shown(diff.fields),
        "origin": origin_fields(diff.cluster, diff.origin) if diff.origin else None,
        "before": origin_fields(diff.cluster, diff.before) if diff.before else None,
    }


def _changes(changes: Iterable[FieldChange]) -> list[Json]:
    return [{"path": one.path, "old": one.old, "new": one.new} for one in changes]


async def get_history(request: web.Request) -> web.Response:
    """What happened to one thing, newest first."""
    check_query(request, "cluster", "limit", "before", "endpoints")
    node, query, path = request.app[NODE], request.query, request.match_info
    own_state(node)
    with_endpoints = query_choice(request, "endpoints", "false", ("false", "true")) == "true"
    subject = Subject.parse(path["kind"], path["name"], with_endpoints=with_endpoints)
    cluster = query.get("cluster")
    page = await node.trails.read(
        subject,
        query_number(request, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX),
        cluster=None if cluster is None else ClusterName(cluster),
        before=_before(query.get("before")),
    )
    return json_answer(
        {
            "kind": subject.kind,
            "name": subject.key,
            "items": [_step(step) for step in page.steps],
            "next": format_vector(page.next) if page.next else None,
            "unknown": page.unknown,
        }
    )


def _before(text: str | None) -> dict[ClusterName, Position] | None:
    if text is None:
        return None
    try:
        return parse_vector(text)
    except RejectedError as error:
        raise HttpProblem(BAD_REQUEST, str(error), error.problems) from None


def _step(step: Step) -> Json:
    return {
        "cluster": step.cluster,
        "log_id": step.log_id,
        "seq": step.seq,
        "time": time_text(step.time_ms),
        "actor": step.event.actor,
        "type": EVENT_TYPE_PREFIX + step.event.type,
        "subject": step.event.key,
        "data": step.event.data,
        "changes": None if step.changes is None else _changes(step.changes),
        "snapshot_seq": step.snapshot_seq,
    }
