"""`/v1/identities`: sets of labels and their numbers, this cluster's and its peers'.

For: reading both, giving labels a number, and taking it back. Not for: which number
(`core.naming`). Invariant: the same labels are answered with the same number, however often and
from wherever they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from meshd.edges.http.answers import json_answer, own_log, own_state, submission, submit
from meshd.edges.http.limits import NODE
from meshd.edges.http.problems import CONFLICT, HttpProblem
from meshd.edges.http.requests import check_query, read_object
from meshd.edges.http.things import Kind, delete_one, get_one, list_labelled
from meshd.edges.http.wire import identity_item, write_result
from meshd.model.command import AllocateIdentity, RemoveIdentity
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


def identity_number(request: web.Request) -> int:
    """The identity that the path names."""
    return parse_identity(request.match_info["number"])


IDENTITIES = Kind(
    identity_number,
    lambda state, number: state.identities.get(number),
    identity_item,
    "has no identity",
)


async def list_identities(request: web.Request) -> web.Response:
    """All identities of one cluster, by number."""
    return await list_labelled(request, IDENTITIES, lambda state: state.identities)


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
    return await get_one(request, IDENTITIES)


async def delete_identity(request: web.Request) -> web.Response:
    """Take an identity's number back."""
    return await delete_one(request, IDENTITIES, RemoveIdentity)
