"""`/v1/cluster`: what this cluster says of itself.

For: reading it, and saying how the cluster is now: its state, its weight, its ranges. Not for: what
its settings say (name, id, place, labels), nor what is known of other clusters (`clusters`).
Invariant: what GET answers, PUT takes.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from meshd.core.state import Held
from meshd.edges.http.answers import (
    json_answer,
    own_log,
    own_state,
    submission,
    submit,
    write_answer,
)
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query, read_object
from meshd.edges.http.services import READ_ONLY_FIELDS
from meshd.edges.http.wire import own_cluster_item
from meshd.model.cluster import ClusterInfo
from meshd.model.command import DescribeCluster
from meshd.model.errors import Problem, RejectedError, TransientError, shown
from meshd.model.schema import all_data, from_data
from meshd.runtime.node import Node

SAID_HERE = ("state", "weight", "announces")
"""What a person changes while meshd runs; the rest of it stands in the settings."""


def routes() -> list[web.AbstractRouteDef]:
    """The path that is served here."""
    return [web.get("/v1/cluster", get_own_cluster), web.put("/v1/cluster", put_own_cluster)]


async def get_own_cluster(request: web.Request) -> web.Response:
    """What this cluster says of itself, and since when."""
    check_query(request)
    node = request.app[NODE]
    return json_answer(own_cluster_item(_own_info(node), *own_log(node)))


async def put_own_cluster(request: web.Request) -> web.Response:
    """Say how this cluster is now; what is left out is at its default."""
    check_query(request)
    node = request.app[NODE]
    known = all_data(_own_info(node).value)
    data = await read_object(request)
    problems = tuple(_misplaced(data, known))
    if problems:
        raise RejectedError(problems)
    given = {name: data[name] for name in SAID_HERE if name in data}
    info = from_data(ClusterInfo, {"name": known["name"], "id": known["id"]} | given, "")
    wanted = DescribeCluster(info.state, info.weight, info.announces)
    return write_answer(node, await submit(node, submission(request, [wanted])))


def _own_info(node: Node) -> Held[ClusterInfo]:
    held = own_state(node).info
    if held is None:
        raise TransientError("this cluster has not said its name in its log yet")
    return held


def _misplaced(data: dict[str, object], known: dict[str, object]) -> Iterator[Problem]:
    for field, value in data.items():
        if field in SAID_HERE or field in READ_ONLY_FIELDS:
            continue
        if field not in known:
            yield Problem(field, "unknown field", f"it may have {', '.join(SAID_HERE)}")
        elif value != known[field]:
            what = f"is {shown(value)}, but the settings say {shown(known[field])}"
            yield Problem(field, what, "leave it out, or change the settings and restart meshd")
