"""Looking after the own etcd: history goes, what is new stays, and only the leader does it."""

from __future__ import annotations

import asyncio

import pytest

from meshd.model.errors import CompactedError
from meshd.model.keyspace import Keyspace
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

EVERY = ("etcd.compact_every_s=60",)


async def compacted(east: Running) -> int:
    """Up to where the etcd has forgotten."""
    keys = Keyspace().local
    try:
        async with (
            asyncio.timeout(0.1),
            east.kv.watch(keys.root, b"\xff", start_revision=1) as responses,
        ):
            async for _ in responses:
                pass
    except CompactedError as error:
        return error.compact_revision
    except TimeoutError:
        pass
    return 0


async def run_for(east: Running, upkeep_s: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(east.parts.upkeep.run())
        await asyncio.sleep(upkeep_s)
        task.cancel()


async def test_history_is_forgotten_up_to_the_time_before() -> None:
    mesh = Mesh(names=("east",), overrides=(*EVERY, "etcd.defragment_free_bytes=1"))
    async with mesh.running("east") as east:
        await east.submit(service())
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(east.parts.upkeep.run())
            await asyncio.sleep(61)
            assert await compacted(east) == 0
            between = mesh.etcds["east"].revision
            await asyncio.sleep(60)
            assert 0 < await compacted(east) <= between
            assert east.kv.calls["defragment"] == 1
            await east.submit(endpoint("shop/web/a"))
            await asyncio.sleep(60)
            assert await compacted(east) > between
            task.cancel()
        assert len(east.eligible("shop/web")) == 1


async def test_where_somebody_else_does_it_nothing_is_done() -> None:
    mesh = Mesh(names=("east",))
    async with mesh.running("east") as east:
        await east.parts.upkeep.run()
        assert east.kv.calls["compact"] == 0


async def test_a_compaction_that_somebody_else_did_or_that_is_refused_ends_nothing() -> None:
    mesh = Mesh(names=("east",), overrides=EVERY)
    async with mesh.running("east") as east, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(east.parts.upkeep.run())
        await asyncio.sleep(61)
        await east.kv.compact(mesh.etcds["east"].revision)
        await asyncio.sleep(60)
        mesh.etcds["east"].set_up(up=False)
        await asyncio.sleep(60)
        mesh.etcds["east"].set_up(up=True)
        await asyncio.sleep(180)
        assert await compacted(east) > 0
        task.cancel()


async def test_who_does_not_lead_forgets_nothing() -> None:
    mesh = Mesh(names=("east",), overrides=EVERY)
    async with mesh.running("east") as east:
        await east.parts.presence.resign()
        east.parts.node.leadership.lose()
        east.kv.set_linked(linked=False)
        await run_for(east, 200)
        assert east.kv.calls["compact"] == 0
