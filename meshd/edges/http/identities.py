"""`/v1/identities`: sets of labels and their numbers, this cluster's and its peers'.

For: reading both, giving labels a number, and taking it back. Not for: which number
(`core.naming`). Invariant: the same labels are answered with the same number, however often and
from wherever they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from meshd.edges.http.answers import (
    json_answer,
    long_answer,
    own_log,
    own_state,
    submission,
    submit,
    write_answer,
)
from meshd.edges.http.as_of import (
    AS_OF,
    asked_state_at,
    item_fields,
    moment_fields,
    moment_of,
    own_state_at,
)
from meshd.edges.http.limits import NODE
from meshd.edges.http.problems import CONFLICT, HttpProblem
from meshd.edges.http.requests import check_query, has_labels, query_labels, read_object
from meshd.edges.http.wire import Json, identity_item, write_result
from meshd.model.command import AllocateIdentity, RemoveIdentity
from meshd.model.errors import NotFoundError
from meshd.model.identity import Identity, parse_identity
from meshd.model.schema import from_data


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    one = "/v1/identities/{number}"
    return [
        web.get("/v1/identities", list_identities),
        web.post("/v1/identities", allocate_identity),
        web.get(one, get_identity),
        web.delete(one, delete_identity),
    ]


async def list_identities(request: web.Request) -> web.Response:
    """All identities of one cluster, by number."""
    check_query(request, "cluster", "label", AS_OF)
    moment = await moment_of(request)
    cluster, log_id, state = asked_state_at(request, moment)
    labels = query_labels(request)
    found = [
        (number, held)
        for number, held in sorted(state.identities.items(), key=lambda item: item[0])
        if has_labels(held.value.labels, labels)
    ]
    fields = moment_fields(moment)

    def make() -> Json:
        items = [identity_item(number, held, cluster, log_id) for number, held in found]
        return {"items": items} | fields

    return await long_answer(make)


async def allocate_identity(request: web.Request) -> web.Response:
    """Give a set of labels its number."""
    check_query(request)
    node, wanted = request.app[NODE], _wanted(await read_object(request))
    command = AllocateIdentity(wanted.value.labels, wanted.audiences)
    outcome = await submit(node, submission(request, [command]))
    numbers = own_state(node).numbers().numbers_of(wanted.value.labels)
    if not numbers:
        detail = "the identity was removed since; ask again, with another Idempotency-Key"
        raise HttpProblem(CONFLICT, detail)
    return json_answer({"number": numbers[0]} | write_result(outcome, *own_log(node)))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A body. audiences: None if it says nothing of them."""

    value: Identity
    audiences: tuple[str, ...] | None


def _wanted(data: dict[str, object]) -> _Wanted:
    value = from_data(Identity, data, "")
    return _Wanted(value, value.audiences if "audiences" in data else None)


async def get_identity(request: web.Request) -> web.Response:
    """One own identity."""
    check_query(request, AS_OF)
    node, number = request.app[NODE], identity_number(request)
    moment = await moment_of(request)
    state, own, log_id = own_state_at(node, moment)
    held = state.identities.get(number)
    if held is None:
        raise NotFoundError(f"{own} has no identity {number}")
    return json_answer(identity_item(number, held, own, log_id) | item_fields(moment))


async def delete_identity(request: web.Request) -> web.Response:
    """Take an identity's number back."""
    check_query(request)
    node, number = request.app[NODE], identity_number(request)
    outcome = await submit(node, submission(request, [RemoveIdentity(number)]))
    if not outcome.events:
        raise NotFoundError(f"{node.projector.own} has no identity {number}")
    return write_answer(node, outcome)


def identity_number(request: web.Request) -> int:
    """The identity that the path names."""
    return parse_identity(request.match_info["number"])
