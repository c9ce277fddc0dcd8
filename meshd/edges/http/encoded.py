"""One service of the table as bytes, kept for those who ask again.

For: a service that is read often and changes seldom, and that may have a thousand backends. Not
for: whole tables, whose readers follow a stream, nor what was at an earlier moment. Invariant: what
is answered is what would be made anew: its view is the same object, which it is until the service
changes, and the same clusters are out of sight.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import orjson
from aiohttp import web

from meshd.core.telling import table_service
from meshd.edges.http.answers import JSON_TYPE
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.table import GlobalService

KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Some sixty services of a thousand backends, or tens of thousands of small ones."""
TAG_BYTES: Final = 16
ANY: Final = "*"
"""Whatever it is: the client has something."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A service as it is answered. tag: tells it from any other answer (RFC 9110, 8.8.3)."""

    view: GlobalService
    stale: frozenset[ClusterName]
    body: bytes
    tag: str


class EncodedServices:
    """Those that were asked for last, up to so many bytes."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[ServiceKey, Encoded] = OrderedDict()
        self.size_bytes = 0

    def of(self, view: GlobalService, digest: str, unfresh: frozenset[ClusterName]) -> Encoded:
        """A service with its digest. unfresh: the clusters that are out of sight now."""
        stale = unfresh.intersection(view.clusters)
        kept = self._kept.get(view.key)
        if kept is None or kept.view is not view or kept.stale != stale:
            kept = self._keep(view, digest, stale)
        if view.key in self._kept:
            self._kept.move_to_end(view.key)
        return kept

    def _keep(self, view: GlobalService, digest: str, stale: frozenset[ClusterName]) -> Encoded:
        former = self._kept.pop(view.key, None)
        if former is not None:
            self.size_bytes -= len(former.body)
        body = orjson.dumps(table_service(view, digest, stale))
        made = Encoded(view, stale, body, blake2b(body, digest_size=TAG_BYTES).hexdigest())
        self._kept[view.key] = made
        self.size_bytes += len(body)
        while self.size_bytes > self._bytes_max:
            _, dropped = self._kept.popitem(last=False)
            self.size_bytes -= len(dropped.body)
        return made


ENCODED: Final = web.AppKey("ENCODED", EncodedServices)


def answer_with(request: web.Request, encoded: Encoded) -> web.Response:
    """Answer with it, or say that the client has it already (`If-None-Match`)."""
    known = request.if_none_match or ()
    if any(tag.value in {ANY, encoded.tag} for tag in known):
        answer = web.Response(status=web.HTTPNotModified.status_code)
    else:
        answer = web.Response(body=encoded.body, content_type=JSON_TYPE)
    answer.etag = encoded.tag
    return answer
