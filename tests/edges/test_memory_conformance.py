"""The same random operations on the etcd in memory and on a real one give the same answers.

What the contract suite doesn't think of, this finds: the answers are compared whole, with revisions
counted from where each store stood at the start and leases numbered as they were granted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd import EtcdKv
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.edges.system import SystemClock
from meshd.model.errors import CompactedError, MeshdError
from meshd.runtime.ports import (
    Compare,
    CreateRevisionIs,
    Delete,
    Get,
    KeyValue,
    Kv,
    ModRevisionIs,
    Operation,
    Put,
    RangeResult,
    Txn,
    ValueIs,
    WatchEvent,
)

STEPS = 100
NO_LEASE = 1_000_003
"""A lease id that neither store has."""


@dataclass(slots=True)
class Side:
    """One store and how to read its numbers."""

    kv: Kv
    prefix: bytes
    base: int = 0
    compacted: int = 0
    leases: list[int] = field(default_factory=list)

    def key(self, name: bytes) -> bytes:
        return self.prefix + name if name else b""

    def end(self, name: bytes) -> bytes:
        return self.prefix + name if name else b""

    def lease(self, number: int) -> int:
        return self.leases[number] if 0 <= number < len(self.leases) else number

    def revision(self, offset: int) -> int:
        return self.base + offset

    def plain(self, kv: KeyValue) -> KeyValue:
        return replace(
            kv,
            key=kv.key.removeprefix(self.prefix),
            create_revision=max(0, kv.create_revision - self.base),
            mod_revision=kv.mod_revision - self.base,
            lease=self.leases.index(kv.lease) + 1 if kv.lease else 0,
        )

    def plain_range(self, result: RangeResult | None) -> object:
        if result is None:
            return None
        kvs = tuple(self.plain(kv) for kv in result.kvs)
        return replace(result, revision=result.revision - self.base, kvs=kvs)


Step = Callable[[Side], Awaitable[object]]


def draw_key(dice: random.Random) -> bytes:
    return dice.choice([b"a", b"b", b"c", b"d", b"dd", b"e\x00", b"e\xff"])


def draw_span(dice: random.Random) -> tuple[bytes, bytes]:
    return draw_key(dice), dice.choice([b"", b"", b"c", b"d", b"z"])


@dataclass(frozen=True, slots=True)
class Plan:
    """A transaction in terms that hold for both stores."""

    compares: tuple[tuple[str, bytes, int], ...]
    success: tuple[tuple[str, bytes, bytes, int], ...]
    failure: tuple[tuple[str, bytes, bytes, int], ...]

    def txn(self, side: Side) -> Txn:
        return Txn(
            tuple(self._compare(side, *compare) for compare in self.compares),
            tuple(self._operation(side, *operation) for operation in self.success),
            tuple(self._operation(side, *operation) for operation in self.failure),
        )

    @staticmethod
    def _compare(side: Side, kind: str, name: bytes, number: int) -> Compare:
        if kind == "value":
            return ValueIs(side.key(name), b"%d" % number)
        revision = side.revision(number) if number else 0
        return (ModRevisionIs if kind == "mod" else CreateRevisionIs)(side.key(name), revision)

    @staticmethod
    def _operation(side: Side, kind: str, name: bytes, other: bytes, number: int) -> Operation:
        if kind == "put":
            return Put(side.key(name), other, side.lease(number - 1) if number else 0)
        if kind == "delete":
            return Delete(side.key(name), side.end(other))
        return Get(side.key(name), side.end(other), number)


def draw_plan(dice: random.Random, now: int, leases: int) -> Plan:
    def compare() -> tuple[str, bytes, int]:
        kind = dice.choice(["value", "mod", "create"])
        number = dice.randrange(4) if kind == "value" else dice.choice([0, dice.randint(0, now)])
        return kind, draw_key(dice), number

    def operation() -> tuple[str, bytes, bytes, int]:
        kind = dice.choices(["put", "delete", "get"], [6, 2, 2])[0]
        if kind == "put":
            lease = dice.choice([0, 0, dice.randint(0, leases), NO_LEASE * dice.randint(0, 1)])
            return kind, draw_key(dice), b"%d" % dice.randrange(4), lease
        return kind, *draw_span(dice), dice.randrange(3)

    def some(draw: Callable[[], object], most: int) -> tuple[object, ...]:
        return tuple(draw() for _ in range(dice.randint(0, most)))

    return Plan(some(compare, 2), some(operation, 4), some(operation, 3))  # type: ignore[arg-type]


async def outcome(step: Step, side: Side) -> object:
    """Return what came of a step; an error counts by its class."""
    try:
        return await step(side)
    except MeshdError as error:
        return type(error).__name__


async def commit(side: Side, plan: Plan) -> object:
    result = await side.kv.commit(plan.txn(side))
    results = tuple(side.plain_range(done) for done in result.results)
    return result.succeeded, result.revision - side.base, results


async def read(side: Side, span: tuple[bytes, bytes], limit: int, offset: int) -> object:
    revision = side.revision(offset) if offset else 0
    found = await side.kv.range(
        side.key(span[0]), side.end(span[1]), limit=limit, revision=revision
    )
    return side.plain_range(found)


async def compact(side: Side, offset: int) -> None:
    await side.kv.compact(side.revision(offset))
    side.compacted = side.revision(offset)


async def grant(side: Side) -> None:
    side.leases.append(await side.kv.grant_lease(600))


async def watch(side: Side, offset: int) -> object:
    """Read all history from an offset on, up to a key that is written to end it."""
    last = (await side.kv.commit(Txn(success=(Put(side.key(b"y"), b""),)))).revision
    events: list[WatchEvent] = []
    start = side.revision(offset)
    span = (side.key(b"a"), side.end(b"z"))
    async with asyncio.timeout(20), side.kv.watch(*span, start_revision=start) as responses:
        try:
            async for response in responses:
                events.extend(response.events)
                if events and events[-1].kv.mod_revision == last:
                    break
        except CompactedError as error:
            return "compacted", error.compact_revision - side.base
    # etcd before 3.4.36 forgets a delete at the very revision of a compaction.
    return [
        (side.plain(event.kv), event.is_delete)
        for event in events
        if not (event.is_delete and event.kv.mod_revision == side.compacted)
    ]


def draw_step(dice: random.Random, now: int, leases: int) -> Step:
    kind = dice.choices(
        ["commit", "range", "compact", "grant", "revoke", "keep", "watch"], [60, 20, 2, 4, 3, 2, 4]
    )[0]
    offset, span, limit = dice.randint(1, now + 2), draw_span(dice), dice.randrange(3)
    lease = dice.randint(0, max(0, leases - 1))
    if kind == "commit":
        plan = draw_plan(dice, now, leases)
        return lambda side: commit(side, plan)
    if kind == "range":
        past = dice.choice([0, offset])
        return lambda side: read(side, span, limit, past)
    return {
        "compact": lambda side: compact(side, offset),
        "grant": grant,
        "revoke": lambda side: side.kv.revoke_lease(side.lease(lease)),
        "keep": lambda side: side.kv.keep_lease(side.lease(lease)),
        "watch": lambda side: watch(side, min(offset, now)),
    }[kind]


@pytest.mark.parametrize("seed", range(20))
async def test_memory_and_etcd_agree(
    seed: int, shared_etcd: EmbeddedEtcd, connect_to: Callable[..., EtcdKv], prefix: bytes
) -> None:
    dice = random.Random(seed)
    sides = (
        Side(connect_to(shared_etcd), prefix),
        Side(MemoryKv(MemoryEtcd(SystemClock())), prefix),
    )
    for side in sides:
        # Offset 1 is this key's revision, the first that any step can name.
        begun = await side.kv.commit(Txn(success=(Put(side.key(b"a"), b"0"),)))
        side.base = begun.revision - 1
    for number in range(STEPS):
        now = (await sides[1].kv.status()).revision - sides[1].base
        step = draw_step(dice, now, len(sides[0].leases))
        real, memory = [await outcome(step, side) for side in sides]
        assert memory == real, f"seed {seed}, step {number}"
    for lease in sides[0].leases:
        await sides[0].kv.revoke_lease(lease)
