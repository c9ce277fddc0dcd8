"""Errors as RFC 9457 problems.

For: the one place where an error becomes an answer. Not for: deciding what is an error. Invariants:
every answer of 400 and above is `application/problem+json`, says what is wrong and, where something
can be done, what; nothing of an unexpected error's inside leaves the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from meshd.model.errors import (
    CompactedError,
    CorruptError,
    DeniedError,
    MeshdError,
    MovedError,
    NoSpaceError,
    NotFoundError,
    OutcomeUnknownError,
    OverloadedError,
    Problem,
    RejectedError,
    TransientError,
)
from meshd.runtime.history import GoneError

log = structlog.get_logger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
TYPE_BASE: Final = "https://meshd.io/problems/"
RETRY_AFTER_S: Final = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of problem: the end of its `type`, its status and its title."""

    slug: str
    status: int
    title: str


BAD_REQUEST: Final = Kind("bad-request", 400, "The request can't be read")
UNAUTHORIZED: Final = Kind("unauthorized", 401, "A valid bearer token is needed")
FORBIDDEN: Final = Kind("forbidden", 403, "A web page of another origin may not do this")
NOT_FOUND: Final = Kind("not-found", 404, "There is no such thing")
METHOD_NOT_ALLOWED: Final = Kind("method-not-allowed", 405, "The path has no such method")
CONFLICT: Final = Kind("conflict", 409, "It doesn't fit what is there now")
REQUEST_TIMEOUT: Final = Kind("request-timeout", 408, "The request took too long to arrive")
GONE: Final = Kind("gone", 410, "It is of a log, or a part of one, that is no more")
BODY_TOO_LARGE: Final = Kind("body-too-large", 413, "The body is too large")
MEDIA_TYPE: Final = Kind("unsupported-media-type", 415, "The content type is not understood")
MISDIRECTED: Final = Kind("misdirected", 421, "The request is meant for another host")
INVALID: Final = Kind("invalid", 422, "The input can't be accepted")
OVERLOADED: Final = Kind("overloaded", 429, "There is too much to do right now")
INTERNAL: Final = Kind("internal", 500, "meshd has a bug")
CORRUPT: Final = Kind("corrupt", 500, "Stored data is damaged")
UNAVAILABLE: Final = Kind("unavailable", 503, "It can't be done right now")
OUTCOME_UNKNOWN: Final = Kind("outcome-unknown", 504, "It isn't known whether it was done")
DEADLINE: Final = Kind("deadline-exceeded", 504, "The answer took too long")
NO_SPACE: Final = Kind("no-space", 507, "The own etcd is full")

KINDS: Final = (
    BAD_REQUEST,
    UNAUTHORIZED,
    FORBIDDEN,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    REQUEST_TIMEOUT,
    CONFLICT,
    GONE,
    BODY_TOO_LARGE,
    MEDIA_TYPE,
    MISDIRECTED,
    INVALID,
    OVERLOADED,
    INTERNAL,
    CORRUPT,
    UNAVAILABLE,
    OUTCOME_UNKNOWN,
    DEADLINE,
    NO_SPACE,
)

_OF_ERRORS: Final[tuple[tuple[type[MeshdError], Kind], ...]] = (
    (GoneError, GONE),
    (MovedError, CONFLICT),
    (RejectedError, INVALID),
    (NotFoundError, NOT_FOUND),
    (OverloadedError, OVERLOADED),
    (OutcomeUnknownError, OUTCOME_UNKNOWN),
    (NoSpaceError, NO_SPACE),
    (CorruptError, CORRUPT),
    (TransientError, UNAVAILABLE),
    (DeniedError, UNAVAILABLE),
    (CompactedError, UNAVAILABLE),
)
"""The first class that fits; a subclass stands before its base."""

_OF_STATUS: Final[Mapping[int, Kind]] = {
    404: NOT_FOUND,
    405: METHOD_NOT_ALLOWED,
    413: BODY_TOO_LARGE,
}
_ADVICE: Final[Mapping[Kind, str]] = {
    OUTCOME_UNKNOWN: "send it again with the same Idempotency-Key: it is done at most once",
    NO_SPACE: "make room: compact and defragment the etcd of this cluster, or raise its quota",
    INTERNAL: "see meshd's log, and report it",
}


class HttpProblem(Exception):  # noqa: N818 it is what the answer is called
    """A request that this edge itself refuses."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        problems: Iterable[Problem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.problems = tuple(problems)
        self.headers = dict(headers or {})


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Make every error an answer."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        problem = _of_http(request, error)
    except HttpProblem as error:
        problem = error
    except MeshdError as error:
        problem = problem_of(error)
    except Exception:
        log.exception("request failed", method=request.method, path=request.path)
        problem = HttpProblem(INTERNAL, "")
    return _respond(request, problem)


def problem_of(error: MeshdError) -> HttpProblem:
    """The problem that an error of ours is."""
    kind = next((kind for known, kind in _OF_ERRORS if isinstance(error, known)), INTERNAL)
    problems = error.problems if isinstance(error, RejectedError) else ()
    headers = {}
    if kind in {OVERLOADED, UNAVAILABLE}:
        wait_s = error.retry_after_s if isinstance(error, OverloadedError) else RETRY_AFTER_S
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    detail = "; ".join([str(error), *getattr(error, "__notes__", ())])
    return HttpProblem(kind, detail, problems, headers)


def problem_fields(problem: HttpProblem, instance: str) -> dict[str, object]:
    """The members of a problem's JSON object."""
    advice = _ADVICE.get(problem.kind, "")
    return {
        "type": TYPE_BASE + problem.kind.slug,
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": "; ".join(part for part in (problem.detail, advice) if part),
        "instance": instance,
        "problems": [
            {"where": one.where, "what": one.what, "remedy": one.remedy} for one in problem.problems
        ],
    }


def _of_http(request: web.Request, error: web.HTTPException) -> HttpProblem:
    """What aiohttp itself refuses."""
    kind = _OF_STATUS.get(error.status, BAD_REQUEST)
    match kind.status:
        case 404:
            detail = f"there is no path {request.path}; see /v1/openapi.json"
        case 405:
            detail = f"{request.path} takes {error.headers.get('Allow', '')}"
        case 413:
            detail = "send less at a time; api.body_bytes_max sets the limit"
        case _:
            detail = error.reason
    headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    return HttpProblem(kind, detail, (), headers)


def _respond(request: web.Request, problem: HttpProblem) -> web.Response:
    response = web.Response(
        status=problem.kind.status,
        body=orjson.dumps(problem_fields(problem, request.path)),
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )
    if problem.kind is REQUEST_TIMEOUT:
        # The rest of the body may still come, so the connection can't be used again.
        response.force_close()
    return response
