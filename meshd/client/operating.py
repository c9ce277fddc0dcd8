"""Asking for drains, ramps and migrations.

For: the part of the client that begins, watches and undoes operations. Not for: what they do.
Invariant: as of every write, each call is done at most once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict, cast

import orjson

from meshd.client.answers import OriginItem, WriteResult
from meshd.client.calls import Calls, path_of


class StageItem(TypedDict):
    """How far everything is turned up in a stage, and for how long."""

    turned_percent: int
    hold_s: float


class ForeseenItem(TypedDict):
    """A stage that will be. shares_ppm: by service (`namespace/name`) and cluster."""

    turned_percent: int
    shares_ppm: dict[str, dict[str, int]]


class ProblemItem(TypedDict):
    """Something that speaks against it."""

    where: str
    what: str
    remedy: str


class OperationItem(TypedDict):
    """An operation as it stands."""

    name: str
    kind: Literal["drain", "undrain", "migration"]
    subjects: list[str]
    stages: list[StageItem]
    stage: int
    before: dict[str, int]
    to: str
    floor_percent: int
    conditions: dict[str, float | None]
    on_trouble: Literal["pause", "rollback"]
    force: bool
    progress: Literal["running", "paused", "done", "rolled-back"]
    reason: str
    by: str
    started_ms: int
    since_ms: int
    turned_percent: dict[str, int]
    next_at: str | None
    waits_for: str | None
    origin: OriginItem


class Started(TypedDict):
    """What a start came to, or would come to: the fields of a write are there if it wasn't dry."""

    name: str
    dry_run: bool
    stages: list[ForeseenItem]
    too_little: list[ProblemItem]
    events: int
    first_seq: int | None
    last_seq: int
    position: str
    repeated: bool


class OperationCalls(Calls):
    """What a client can ask of operations."""

    async def operations(self) -> list[OperationItem]:
        """All operations, the one that changed last first."""
        return cast("list[OperationItem]", (await self._get("/v1/operations"))["items"])

    async def operation(self, name: str) -> OperationItem:
        """One operation."""
        return cast("OperationItem", await self._get(path_of("operations", name)))

    async def start_operation(
        self, plan: Mapping[str, object], *, dry_run: bool = False, key: str = ""
    ) -> Started:
        """Drain something or undrain it. plan: kind, subjects and how, and a `name` if wanted."""
        return await self._start("/v1/operations", plan, dry_run=dry_run, key=key)

    async def start_migration(
        self, plan: Mapping[str, object], *, dry_run: bool = False, key: str = ""
    ) -> Started:
        """Move services to another cluster. plan: with a `name` if wanted."""
        return await self._start("/v1/migrations", plan, dry_run=dry_run, key=key)

    async def _start(
        self, path: str, plan: Mapping[str, object], *, dry_run: bool, key: str
    ) -> Started:
        asked = f"{path}?dry_run=true" if dry_run else path
        return cast("Started", await self._write("POST", asked, orjson.dumps(plan), key))

    async def move_operation(
        self,
        name: str,
        move: Literal["pause", "resume", "rollback"],
        *,
        reason: str = "",
        key: str = "",
    ) -> WriteResult:
        """Pause an operation, resume it, or roll it back."""
        body = orjson.dumps({"reason": reason}) if reason else None
        path = path_of("operations", name, move)
        return cast("WriteResult", await self._write("POST", path, body, key))

    async def tell_signal(self, name: str, error_percent: float) -> None:
        """Tell how many percent of requests fail, as somebody outside measured it."""
        body = orjson.dumps({"error_percent": error_percent})
        await self._write("POST", path_of("operations", name, "signal"), body, "")

    async def delete_operation(self, name: str, *, key: str = "") -> WriteResult:
        """Forget an operation that ended."""
        path = path_of("operations", name)
        return cast("WriteResult", await self._write("DELETE", path, None, key))
