"""What all parts of the client ask with: one resource, a list, a write.

For: the parts that ask of tables, things, policies, registrations and operations. Not for: how it
is done (`client`). Invariant: a write is asked for with one Idempotency-Key, however often.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

JSON_TYPE: Final = "application/json"


class Calls:
    """A connection to one meshd, as the parts of a client see it."""

    @abstractmethod
    async def _get(self, path: str, **query: str) -> Any:
        """Read one resource."""

    @abstractmethod
    async def _items(self, path: str, labels: Sequence[str] = (), /, **query: str) -> list[Any]:
        """Read a list, or of it what has these labels."""

    @abstractmethod
    async def _write(
        self, method: str, path: str, body: bytes | None, key: str, kind: str = JSON_TYPE
    ) -> Any:
        """Ask for a write, again and again with the same key while that may help."""


def path_of(*parts: str) -> str:
    """The path of a resource."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)
