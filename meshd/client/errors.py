"""What goes wrong between a client and meshd, in one error.

For: telling people, and telling what may be tried again. Not for: trying again (`client`).
Invariant: a `ClientError` names the server's URL and says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from meshd.model.errors import MeshdError, Problem

UNREACHABLE = 0
"""In place of a status, where no answer came."""
BODY_CHARS_MAX = 200


class ClientError(MeshdError):
    """A request that failed.

    url: what was asked. status: HTTP's, or 0 if no answer came. body: the answer's problem+json.
    was_sent: the server may have acted on it. retry_after_s: when the server wants to be asked
    again.
    """

    def __init__(
        self,
        url: str,
        status: int,
        title: str,
        *,
        body: Mapping[str, object] | None = None,
        was_sent: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        self.url = url
        self.status = status
        self.title = title
        self.body = dict(body or {})
        self.was_sent = was_sent
        self.retry_after_s = retry_after_s
        super().__init__(self._line())

    @property
    def slug(self) -> str:
        """The last part of the problem's type: `invalid`, `outcome-unknown`, …; '' for none."""
        return str(self.body.get("type", "")).rpartition("/")[2]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the input, if that is what it is."""
        listed = self.body.get("problems")
        found = listed if isinstance(listed, list) else []
        return tuple(
            Problem(*(str(one.get(key) or "") for key in ("where", "what", "remedy")))
            for one in found
            if isinstance(one, Mapping)
        )

    @property
    def is_unreachable(self) -> bool:
        """Whether nobody answered at all."""
        return self.status == UNREACHABLE and not self.was_sent

    @property
    def is_passing(self) -> bool:
        """Whether the same request may work later, as far as one can tell from here."""
        return self.status in {UNREACHABLE, 408, 429, 502, 503, 504}

    def _line(self) -> str:
        detail = str(self.body.get("detail") or "")
        status = f" ({self.status})" if self.status else ""
        return f"{self.url}: {self.title}{status}" + (f": {detail}" if detail else "")


def error_of(url: str, status: int, raw: bytes, headers: Mapping[str, str]) -> ClientError:
    """The error that an answer of 400 and above is."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, Mapping) or "title" not in body:
        text = raw.decode(errors="replace")[:BODY_CHARS_MAX]
        title = f"answers, but not as meshd does: {text!r}; is this meshd's address?"
        return ClientError(url, status, title)
    title = str(body["title"])
    return ClientError(url, status, title, body=body, retry_after_s=_seconds(headers))


def _seconds(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
