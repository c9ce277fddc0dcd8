"""What a request says, checked.

For: names in paths, query parameters, headers and bodies, as values or as a problem. Not for: what
is done with them. Invariant: nothing of a request is ignored silently: an unknown parameter is an
error.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from aiohttp import hdrs, web

from meshd.edges.http.documents import JSON_TYPE, YAML_TYPES, parse_documents
from meshd.edges.http.limits import LIMITS
from meshd.edges.http.problems import BAD_REQUEST, MEDIA_TYPE, REQUEST_TIMEOUT, HttpProblem
from meshd.model.errors import Problem, RejectedError
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
IDEMPOTENCY_KEY_CHARS_MAX: Final = 240
"""Below the 256 of a cause, so that the parts of a large apply can add their number."""
ACTOR: Final = "Meshd-Actor"
ACTOR_CHARS_MAX: Final = 200
ACTOR_DEFAULT: Final = "rest"
EVENT_STREAM: Final = "text/event-stream"

_PRINTABLE: Final = re.compile(r"[ -~]+\Z")
_NUMBER: Final = re.compile(r"[0-9]{1,19}\Z")


def service_key(request: web.Request) -> ServiceKey:
    """The service that the path names."""
    parts = request.match_info
    return ServiceKey.parse(f"{parts['namespace']}/{parts['service']}")


def endpoint_key(request: web.Request) -> EndpointKey:
    """The endpoint that the path names."""
    parts = request.match_info
    return EndpointKey.parse(f"{parts['namespace']}/{parts['service']}/{parts['endpoint']}")


def cluster_name(request: web.Request) -> ClusterName:
    """The cluster that the path names; whether it is known is for others to say."""
    return ClusterName(request.match_info["cluster"])


def check_query(request: web.Request, *known: str) -> None:
    """Refuse parameters that nobody reads: a typing error would otherwise look like an answer."""
    unknown = sorted(set(request.query) - set(known))
    if unknown:
        takes = ", ".join(known) or "no parameter"
        raise HttpProblem(
            BAD_REQUEST,
            f"unknown query parameter {unknown[0]!r}",
            (
                Problem(f"?{name}", "unknown parameter", f"this path takes {takes}")
                for name in unknown
            ),
        )


def query_number(request: web.Request, name: str, default: int, lowest: int, highest: int) -> int:
    """A number in the query, from `lowest` to `highest`."""
    text = request.query.get(name)
    if text is None:
        return default
    if not _NUMBER.match(text) or not lowest <= int(text) <= highest:
        raise bad_query(name, f"{text!r} is not a number of {lowest}..{highest}")
    return int(text)


def query_choice(request: web.Request, name: str, default: str, among: Collection[str]) -> str:
    """One of a few words in the query."""
    text = request.query.get(name, default)
    if text not in among:
        raise bad_query(name, f"{text!r} is none of {', '.join(among)}")
    return text


LABEL_FILTERS_MAX: Final = 64


def query_labels(request: web.Request) -> list[tuple[str, str | None]]:
    """The labels that `?label=` asks for, each as `name=value`, or `name` for any value."""
    texts = request.query.getall("label", [])
    if len(texts) > LABEL_FILTERS_MAX:
        raise bad_query("label", f"is given {len(texts)} times; at most {LABEL_FILTERS_MAX}")
    found: list[tuple[str, str | None]] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise bad_query("label", f"{text!r} is neither name=value nor name")
        found.append((name, value if equals else None))
    return found


def has_labels(labels: Mapping[str, str], wanted: Sequence[tuple[str, str | None]]) -> bool:
    """Whether labels fulfil all that is asked for."""
    return all(
        name in labels and (value is None or labels[name] == value) for name, value in wanted
    )


def query_flag(request: web.Request, name: str) -> bool:
    """Whether something is said to be so."""
    return query_choice(request, name, "false", ("false", "true")) == "true"


def bad_query(name: str, what: str) -> HttpProblem:
    """A parameter with a wrong value."""
    return HttpProblem(BAD_REQUEST, f"?{name}: {what}", (Problem(f"?{name}", what),))


def is_stream(request: web.Request) -> bool:
    """Whether the client asks for an event stream, as server-sent events or as a WebSocket."""
    return EVENT_STREAM in request.headers.get(hdrs.ACCEPT, "") or is_upgrade(request)


def is_upgrade(request: web.Request) -> bool:
    """Whether the client asks for a WebSocket."""
    return request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"


def idempotency_key(request: web.Request) -> str:
    """The caller's key, or ''."""
    return _header(request, IDEMPOTENCY_KEY, "", IDEMPOTENCY_KEY_CHARS_MAX)


def actor(request: web.Request) -> str:
    """Who the caller says to be. It is a note for people, not a proof."""
    return _header(request, ACTOR, ACTOR_DEFAULT, ACTOR_CHARS_MAX)


def _header(request: web.Request, name: str, default: str, chars_max: int) -> str:
    text = request.headers.get(name, default)
    if text != default and (not _PRINTABLE.match(text) or len(text) > chars_max):
        what = f"is not 1 to {chars_max} printable ASCII characters"
        raise HttpProblem(BAD_REQUEST, f"{name} {what}", (Problem(name, what),))
    return text


async def read_documents(
    request: web.Request, *, may_be_empty: bool = False
) -> list[tuple[str, object]]:
    """The documents in the body, each with its place."""
    essence = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if not (essence in YAML_TYPES or essence.endswith(("+json", "+yaml")) or essence == JSON_TYPE):
        raise HttpProblem(
            MEDIA_TYPE, f"{essence!r} is neither {JSON_TYPE} nor application/yaml: set Content-Type"
        )
    raw = await _read_body(request)
    try:
        # A thread, because 8 MiB of YAML take seconds, and the logs must be followed meanwhile.
        return await asyncio.to_thread(parse_documents, raw, essence, may_be_empty=may_be_empty)
    except RejectedError as error:
        raise HttpProblem(BAD_REQUEST, str(error), error.problems) from None


async def read_object(request: web.Request) -> dict[str, object]:
    """The body as one object."""
    documents = await read_documents(request)
    data = documents[0][1]
    if len(documents) != 1 or not isinstance(data, dict):
        what = f"{len(documents)} documents" if len(documents) != 1 else type(data).__name__
        raise HttpProblem(BAD_REQUEST, f"the body must be one object; it is {what}")
    return data


async def _read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(request.app[LIMITS].body_timeout_s):
            return await request.read()
    except TimeoutError:
        raise HttpProblem(REQUEST_TIMEOUT, "send the body faster") from None
