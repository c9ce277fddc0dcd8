"""Keeping logs short: snapshots, trims, and what readers near and far notice of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshd.core.audit import Audit
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.archive import ArchiveReader
from meshd.model.command import RemoveService
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.snapshot import Manifest, decode_manifest
from meshd.runtime.history import GoneError
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

SPACE = Keyspace()
SHORT = (
    "retention.check_every_s=1",
    "retention.snapshot_every_events=10",
    "retention.keep_events=20",
    "retention.cap_events=100",
)
EAST, WEST = ClusterName("east"), ClusterName("west")


async def manifest_in(etcd: MemoryEtcd, keys: LogKeys) -> Manifest | None:
    found = await MemoryKv(etcd).range(keys.manifest)
    return decode_manifest(found.kvs[0].value, "manifest") if found.kvs else None


async def seqs_in(etcd: MemoryEtcd, keys: LogKeys) -> list[int]:
    found = await MemoryKv(etcd).range(keys.log, keys.log_end)
    return [keys.seq_of(kv.key) or 0 for kv in found.kvs]


async def parts_in(etcd: MemoryEtcd, keys: LogKeys) -> list[int]:
    """The seqs of the snapshots of which there are parts."""
    found = await MemoryKv(etcd).range(keys.snapshots, keys.manifest)
    parts = (kv.key for kv in found.kvs if not kv.key.endswith(b"/manifest"))
    return sorted({int(key.split(b"/")[-2]) for key in parts})


async def flap(east: Running, times: int) -> None:
    """So many events of one endpoint, each in a record of its own."""
    for number in range(times):
        await east.submit(endpoint("shop/web/a", weight=1 + number % 100))


async def test_a_log_is_summed_up_and_cut_behind_the_snapshot_before() -> None:
    mesh = Mesh(names=("east",), overrides=SHORT)
    etcd = mesh.etcds["east"]
    async with mesh.running("east") as east:
        await east.submit(service())
        for _ in range(10):
            await flap(east, 10)
            await asyncio.sleep(3)
        for keys in (SPACE.local, SPACE.export()):
            manifest = await manifest_in(etcd, keys)
            assert manifest is not None
            seqs = await seqs_in(etcd, keys)
            assert seqs[0] == manifest.trim.seq + 1
            assert 0 < manifest.trim.seq <= manifest.previous_seq < manifest.head.seq <= seqs[-1]
            assert 20 <= seqs[-1] - manifest.trim.seq < 40
            kept = {manifest.previous_seq, manifest.head.seq, *manifest.kept}
            assert await parts_in(etcd, keys) == sorted(kept)
            # Whoever looks back begins where the records do; of an export log nobody does.
            assert manifest.kept[:1] == ((manifest.trim.seq,) if keys == SPACE.local else ())


async def test_what_a_log_comes_to_is_the_same_after_a_restart() -> None:
    mesh = Mesh(names=("east",), overrides=SHORT)
    async with mesh.running("east") as east:
        await east.submit(service(), cause="once")
        await flap(east, 50)
        await asyncio.sleep(3)
        await flap(east, 20)
        await asyncio.sleep(3)
        await flap(east, 5)
        state = east.parts.node.projector.state(EAST)
        digest = east.parts.node.projector.tables.digest
    assert (await seqs_in(mesh.etcds["east"], SPACE.local))[0] > 1
    async with mesh.running("east") as east:
        assert east.parts.node.projector.state(EAST) == state
        assert east.parts.node.projector.tables.digest == digest
        # It was read before anything else, from its snapshot: the records before it are gone.
        assert east.parts.own_follower.state.traffic.records_read == 0
        again = await east.submit(service(), cause="once")
        assert again.repeated
        await flap(east, 1)


async def test_a_newcomer_begins_with_the_snapshot_and_keeps_it() -> None:
    mesh = Mesh(names=("east", "west"), overrides=SHORT)
    async with mesh.running("east") as east:
        await east.submit(service())
        for _ in range(5):
            await flap(east, 10)
            await asyncio.sleep(2)
        async with mesh.running("west") as west:
            await west.submit(service())
            await west.until_ready("east")
            await west.until_count("shop/web", 1)
            traffic = west.parts.node.peers.condition(EAST)
            assert traffic is not None
            assert traffic.traffic.snapshots == 1
            assert traffic.traffic.records_read < 20
            await west.until(lambda: durable(west) == (traffic.head.seq if traffic.head else 0))
            expected = west.parts.node.projector.state(EAST)
        mesh.etcds["east"].set_up(up=False)
        # East is dead; what west kept is all there is.
        async with mesh.running("west") as west:
            assert west.eligible("shop/web") == [("east", "a", 16)]
            assert west.parts.node.projector.state(EAST) == expected


def durable(west: Running) -> int:
    return next(iter(west.parts.node.peers)).store.durable_seq


async def test_a_reader_that_keeps_up_never_notices_a_cut() -> None:
    mesh = Mesh(names=("east", "west"), overrides=SHORT)
    async with mesh.running("east") as east, mesh.running("west") as west:
        await east.submit(service())
        await west.until_ready("east")
        for _ in range(8):
            await flap(east, 10)
            await asyncio.sleep(2)
        await west.until(lambda: seq_of(west) == seq_at_home(east))
        condition = west.parts.node.peers.condition(EAST)
        assert condition is not None
        traffic = condition.traffic
        assert (traffic.snapshots, traffic.records_duplicate, traffic.forks) == (0, 0, 0)
        assert (await seqs_in(mesh.etcds["east"], SPACE.export()))[0] > 1
        # Its copy is kept short too, by its own leader.
        await asyncio.sleep(3)
        place = next(iter(west.parts.node.peers)).store.place
        assert (await seqs_in(mesh.etcds["west"], SPACE.replica(EAST, place)))[0] > 1


def seq_of(west: Running) -> int:
    head = west.parts.node.projector.head(EAST)
    return head.seq if head else 0


def seq_at_home(east: Running) -> int:
    local_head = east.parts.node.projector.local_head
    return local_head.exports["mesh"].seq if local_head else -1


async def test_what_a_peer_needs_is_kept_until_the_cap() -> None:
    mesh = Mesh(names=("east", "west"), overrides=SHORT)
    etcd = mesh.etcds["east"]
    async with mesh.running("east") as east:
        async with mesh.running("west") as west:
            await east.submit(service())
            await west.until_ready("east")
            await west.until(lambda: seq_of(west) == seq_at_home(east))
            await east.until_ready("west")
            # Until west's heartbeat has said what it has read.
            await asyncio.sleep(3)
        for _ in range(6):
            await flap(east, 10)
            await asyncio.sleep(2)
        assert (await seqs_in(etcd, SPACE.export()))[0] <= 4
        # Its local log is nobody's but its own.
        assert (await seqs_in(etcd, SPACE.local))[0] > 20
        for _ in range(8):
            await flap(east, 10)
            await asyncio.sleep(2)
        assert (await seqs_in(etcd, SPACE.export()))[0] > 20
        async with mesh.running("west") as west:
            await west.submit(service())
            await west.until_ready("east")
            condition = west.parts.node.peers.condition(EAST)
            assert condition is not None
            assert (condition.traffic.snapshots, condition.traffic.forks) == (1, 0)


async def test_services_that_went_while_the_log_was_cut_are_withdrawn_once() -> None:
    mesh = Mesh(names=("east", "west"), overrides=(*SHORT, "retention.cap_events=30"))
    async with mesh.running("east") as east:
        async with mesh.running("west") as west:
            for name in ("web", "cart"):
                await west.submit(service(f"shop/{name}"))
                await east.submit(service(f"shop/{name}"), endpoint(f"shop/{name}/b"))
            await west.until_count("shop/cart", 1)
            await west.until_ready("east")
            await west.until(lambda: durable(west) == seq_at_home(east))
        await east.submit(endpoint("shop/web/a"), RemoveService(ServiceKey.parse("shop/cart")))
        for _ in range(10):
            await flap(east, 10)
            await asyncio.sleep(2)
        etcd = mesh.etcds["east"]
        etcd.set_up(up=False)
        async with mesh.running("west") as west:
            assert len(west.eligible("shop/cart")) == 1
            etcd.set_up(up=True)
            await west.until_count("shop/cart", 0)
            await west.until_count("shop/web", 2)
            await west.until_ready("east")
            condition = west.parts.node.peers.condition(EAST)
            assert condition is not None
            assert (condition.traffic.snapshots, condition.traffic.forks) == (1, 0)


async def test_events_that_were_cut_off_are_gone_and_said_to_be() -> None:
    mesh = Mesh(names=("east",), overrides=(*SHORT, "streams.ring_bytes=1048576"))
    async with mesh.running("east") as east:
        await east.submit(service())
        for _ in range(6):
            await flap(east, 10)
            await asyncio.sleep(2)
    async with mesh.running("east") as east:
        history = east.parts.node.history
        manifest = await manifest_in(mesh.etcds["east"], SPACE.local)
        assert manifest is not None
        with pytest.raises(GoneError, match="were cut off"):
            await history.read(EAST, 1, 10)
        told = await history.read(EAST, 0, 5)
        assert told[0].position.seq == manifest.trim.seq + 1
        assert (await history.read(EAST, manifest.trim.seq, 1)) == told[:1]


async def test_records_are_archived_before_they_are_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    mesh = Mesh(names=("east",), overrides=(*SHORT, f"retention.archive_dir={folder}"))
    async with mesh.running("east") as east:
        await east.submit(service())
        for _ in range(8):
            await flap(east, 10)
            await asyncio.sleep(2)
    audit: Audit | None = None
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            reader = ArchiveReader(file.read, str(path))
            audit = audit or Audit(EAST, reader.origin.log_id)
            audit.begin(EAST, reader.origin.log_id, str(path))
            for entry in reader.entries():
                audit.take(entry)
    assert audit is not None
    assert audit.at is not None
    assert audit.at.seq + 1 == (await seqs_in(mesh.etcds["east"], SPACE.local))[0]


async def test_an_archive_that_cannot_be_written_keeps_the_records(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    overrides = (*SHORT, f"retention.archive_dir={tmp_path / 'file'}")
    mesh = Mesh(names=("east",), overrides=overrides)
    async with mesh.running("east") as east:
        await east.submit(service())
        for _ in range(6):
            await flap(east, 10)
            await asyncio.sleep(2)
    assert (await seqs_in(mesh.etcds["east"], SPACE.local))[0] == 1
    assert (await seqs_in(mesh.etcds["east"], SPACE.export()))[0] > 1
