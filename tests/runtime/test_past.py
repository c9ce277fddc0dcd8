"""Earlier states: exactly what was served then, or a refusal that says why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.derive import derive, digest_of_table
from meshd.core.fold import fold_record
from meshd.core.past import beginning, oldest, parse_as_of, time_text
from meshd.core.state import ClusterState
from meshd.core.trail import Subject
from meshd.daemon.parts import identity_of
from meshd.edges.memory import MemoryKv
from meshd.model.archive import LogName
from meshd.model.codec import decode_record
from meshd.model.command import Submission
from meshd.model.errors import (
    CorruptError,
    NotFoundError,
    OverloadedError,
    RejectedError,
    TransientError,
)
from meshd.model.event import Record
from meshd.model.ids import ClusterName, LogId, Position, Seq, format_vector, parse_vector
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.model.service import Affinity
from meshd.model.table import GlobalService
from meshd.runtime.bootstrap import ensure_log
from meshd.runtime.history import GoneError
from meshd.runtime.past import FOLDING_MAX, REMEMBERED, WAITING_MAX, Moment
from meshd.runtime.ports import Delete, Txn
from meshd.runtime.shortening import cut, sum_up
from meshd.runtime.stored_log import LOCAL, StoredLog, open_log
from tests.logs import histories
from tests.mesh import Mesh, Running, SeededChance, endpoint, service

SPACE = Keyspace()
EAST, WEST, SOUTH = (ClusterName(name) for name in ("east", "west", "south"))
SHORT = (
    "retention.check_every_s=1",
    "retention.snapshot_every_events=10",
    "retention.keep_events=30",
    "retention.cap_events=100",
    "retention.snapshots_kept=4",
    "replication.heartbeat_every_s=0.5",
)


# A state at any seq is the fold of what came before, from whichever snapshot.


async def _records(kv: MemoryKv, keys: LogKeys) -> list[Record]:
    found = await kv.range(keys.log, keys.log_end)
    return [decode_record(one.value, "a record") for one in found.kvs]


def _prefix(records: dict[int, Record], seq: int, cluster: ClusterName) -> ClusterState:
    state = ClusterState()
    for last_seq in sorted(records):
        if records[last_seq].first_seq <= seq:
            fold_record(state, beginning(records[last_seq], seq), cluster)
    return replace(state, unknown=type(state.unknown)())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(histories, st.sampled_from(("", "sum", "sum", "cut"))), max_size=6),
    st.integers(3, 4),
)
def test_a_state_at_any_seq_equals_the_fold_of_the_prefix(
    turns: list[tuple[list[Submission], str]], limit: int
) -> None:
    async def scenario() -> None:
        mesh = Mesh(("west",))
        records: dict[int, Record] = {}
        async with mesh.running("west") as west:
            for history, chore in turns:
                for submission in history:
                    try:
                        await west.parts.node.writer.submit(submission)
                    except RejectedError:
                        continue
                records |= {one.last_seq: one for one in await _records(west.kv, SPACE.local)}
                log = await open_log(west.kv, SPACE, LOCAL)
                if chore and (log.snapshot is None or log.head.seq > log.snapshot.head.seq):
                    await sum_up(west.kv, log, lambda: (), limit)
                    log = await open_log(west.kv, SPACE, LOCAL)
                marks = log.snapshot.marks if log.snapshot else ()
                if chore == "cut" and marks:
                    await cut(west.kv, log, marks[len(marks) // 2], lambda: ())
            log = await open_log(west.kv, SPACE, LOCAL)
            records |= {one.last_seq: one for one in await _records(west.kv, SPACE.local)}
            first = oldest(log.snapshot).seq
            for seq in range(first, log.head.seq + 1):
                at = Position(WEST, log.head.log_id, Seq(seq))
                moment = await west.parts.node.past.at({WEST: at})
                state = replace(moment.states[WEST], unknown=type(moment.states[WEST].unknown)())
                assert state == _prefix(records, seq, WEST)
                assert moment.at == {WEST: at}
            if first:
                before = Position(WEST, log.head.log_id, Seq(first - 1))
                with pytest.raises(GoneError, match=f"at seq {first} "):
                    await west.parts.node.past.at({WEST: before})

    asyncio.run(scenario())


# What was served at a vector is what is told of it.


@dataclass(slots=True)
class Seen:
    """What was served at some moment. logs, shared: its vector, in both kinds of positions."""

    logs: str
    shared: str
    digest: str
    table: dict[str, GlobalService]
    time_ms: int


@dataclass(slots=True)
class Watcher:
    """Writes down what a meshd serves."""

    seen: list[Seen] = field(default_factory=list)

    def look(self, meshd: Running, clock_ms: int) -> None:
        projector = meshd.parts.node.projector
        tables = projector.tables
        views = {str(key): tables.view(key) for key in tables.keys()}  # noqa: SIM118
        self.seen.append(
            Seen(
                format_vector(projector.log_vector()),
                format_vector(projector.vector()),
                tables.digest,
                {key: view for key, view in views.items() if view is not None},
                clock_ms,
            )
        )


def told(moment: Moment, own: ClusterName = EAST) -> tuple[str, dict[str, GlobalService]]:
    table = derive(own, moment.states, moment.log_ids)
    digest = digest_of_table(own, moment.states, moment.log_ids)
    return digest, {str(key): view for key, view in table.items()}


async def ask(meshd: Running, text: str) -> Moment:
    return await meshd.parts.node.past.at(parse_as_of(text, "as_of"))


def durable(meshd: Running, *peers: ClusterName) -> bool:
    """Whether all that is folded of the peers is in the own etcd."""
    projector = meshd.parts.node.projector
    heads = {peer.name: peer.store.durable_seq for peer in meshd.parts.node.peers}
    return all((head := projector.head(name)) and heads[name] == head.seq for name in peers)


def is_before(vector: str, first: dict[ClusterName, int]) -> bool:
    return any(at.seq < first[name] for name, at in parse_vector(vector).items())


async def stored(meshd: Running, name: ClusterName) -> StoredLog:
    log = await meshd.parts.node.past.open(name)
    assert log is not None
    return log


async def flap(meshd: Running, weight: int) -> None:
    await meshd.submit(endpoint("shop/web/a", weight=weight))


@pytest.mark.looptime
async def test_what_was_served_is_told_across_snapshots_cuts_and_a_restart() -> None:
    mesh, watcher = Mesh(("east", "west"), overrides=SHORT), Watcher()
    async with mesh.running("west") as west:
        async with mesh.running("east") as east:
            await west.submit(service())
            await east.submit(service())
            await east.until_ready("west")
            for number in range(1, 80):
                await flap(west if number % 2 else east, number)
                if number % 9 == 0:
                    await east.submit(service("shop/secret", is_global=False))
                    await east.submit(
                        service(affinity=Affinity.NONE if number % 2 else Affinity.LOCAL)
                    )
                await asyncio.sleep(0.7)
                # A little before the next one happens.
                watcher.look(east, mesh.clock.wall_ms() - 1)
            await east.until(lambda: durable(east, WEST))
        async with mesh.running("east") as east:
            await east.until_ready("west")
            log = await stored(east, EAST)
            assert log.snapshot is not None
            assert log.snapshot.trim.seq > 0
            assert log.snapshot.kept[0] == log.snapshot.trim.seq
            assert len(log.snapshot.kept) == 3
            first = {name: (await stored(east, name)).first_seq - 1 for name in (EAST, WEST)}
            gone = [seen for seen in watcher.seen if is_before(seen.logs, first)]
            for seen in gone:
                with pytest.raises(GoneError, match="the oldest state that can be told"):
                    await ask(east, seen.logs)
            assert 0 < len(gone) < len(watcher.seen) - 20
            for seen in watcher.seen[len(gone) :]:
                moment = await ask(east, seen.logs)
                assert told(moment) == (seen.digest, seen.table)
                assert format_vector(moment.at) == seen.logs
            for seen in watcher.seen[-20:]:
                # Of the own log only what is exported is in these positions, so is the digest.
                moment = await ask(east, seen.shared)
                assert told(moment)[0] == seen.digest
                # And by time, since nothing happened in between.
                by_time = await ask(east, str(seen.time_ms))
                assert format_vector(by_time.at) == seen.logs
                assert by_time.states == (await ask(east, time_text(seen.time_ms))).states
                assert format_vector(by_time.shared) == seen.shared


@pytest.mark.looptime
async def test_a_cluster_is_unknown_before_its_first_record_and_where_the_vector_lacks_it() -> None:
    mesh = Mesh(("east", "west", "south"), overrides=SHORT)
    async with mesh.running("east") as east:
        await east.submit(service())
        alone_ms = mesh.clock.wall_ms()
        await asyncio.sleep(5)
        async with mesh.running("west") as west:
            await west.submit(service())
            await east.until_ready("west")
            await east.until(lambda: durable(east, WEST))
            moment = await ask(east, str(alone_ms))
            assert (set(moment.states), moment.unknown) == ({EAST}, (SOUTH, WEST))
            moment = await ask(east, str(mesh.clock.wall_ms()))
            assert (set(moment.states), moment.unknown) == ({EAST, WEST}, (SOUTH,))
            vector = parse_vector(format_vector(moment.at))
            del vector[WEST]
            # The same places are remembered, and what isn't asked for is still named.
            for _ in range(2):
                assert (await ask(east, format_vector(vector))).unknown == (SOUTH, WEST)
            now = east.parts.node.past.now()
            assert (now.at, now.unknown) == (moment.at, (SOUTH,))
            assert told(now) == told(moment)
            # It stands still.
            await east.submit(service("shop/later"), endpoint("shop/web/later"))
            assert told(now) == told(moment)


@asynccontextmanager
async def pair(mesh: Mesh) -> AsyncIterator[tuple[Running, Running]]:
    """East and west, which have read each other to the end."""
    async with mesh.running("east") as east, mesh.running("west") as west:
        await west.submit(service())
        await east.submit(service())
        await east.until_ready("west")
        await east.until(lambda: durable(east, WEST))
        yield east, west


def later(position: Position) -> Position:
    return replace(position, seq=Seq(position.seq + 1))


@pytest.mark.looptime
async def test_what_was_never_there_is_refused_with_the_reason() -> None:
    mesh = Mesh(("east", "west"), overrides=SHORT)
    async with pair(mesh) as (east, _):
        now = (await ask(east, str(mesh.clock.wall_ms()))).at
        own, peer, export = now[EAST], now[WEST], east.parts.node.projector.vector()[EAST]
        other = replace(own, log_id=LogId("0" * 32))
        again = f"log {other.log_id} of east was re-created: log {own.log_id} .* since 2023-"
        cases: list[tuple[type[Exception], str, tuple[Position, ...]]] = [
            (RejectedError, "of east is not reached yet", (later(own),)),
            (RejectedError, "of east is not reached yet", (later(export),)),
            (RejectedError, f"seq {peer.seq + 1} of west is not reached yet", (own, later(peer))),
            (RejectedError, "no position of east", (peer,)),
            (RejectedError, "no log of south is held", (own, Position(SOUTH, own.log_id, Seq(1)))),
            (GoneError, again, (other,)),
        ]
        for error, words, positions in cases:
            with pytest.raises(error, match=words):
                await east.parts.node.past.at({one.cluster: one for one in positions})
        with pytest.raises(RejectedError, match="is yet to come: here it is 2023-"):
            await ask(east, str(mesh.clock.wall_ms() + 1))
        with pytest.raises(GoneError, match="the log of east had no record by 1970-"):
            await ask(east, "1970-01-01T00:00:01Z")


@pytest.mark.looptime
async def test_what_was_replaced_or_cut_off_is_refused_with_the_reason() -> None:
    mesh = Mesh(("east", "west"), overrides=SHORT)
    async with mesh.running("east") as east:
        async with mesh.running("west") as west:
            await west.submit(service())
            await east.submit(service())
            await east.until_ready("west")
            await east.until(lambda: durable(east, WEST))
            at_ms = mesh.clock.wall_ms()
            now = (await ask(east, str(at_ms))).at
            export = east.parts.node.projector.vector()[EAST]
        own, former = now[EAST], now[WEST]
        mesh.etcds["west"].wipe()
        async with mesh.running("west") as west:
            await west.submit(service())
            await east.until(lambda: east.parts.node.projector.log_ids[WEST] != former.log_id)
            await east.until(lambda: durable(east, WEST))
            await asyncio.sleep(5)
            with pytest.raises(GoneError, match=f"log {former.log_id} of west was re-created"):
                await east.parts.node.past.at({EAST: own, WEST: former})
        for number in range(160):
            await flap(east, number + 1)
            await asyncio.sleep(0.3)
        past = east.parts.node.past
        with pytest.raises(GoneError, match=f"seq {own.seq} of east is before what is kept"):
            await past.at({EAST: own})
        with pytest.raises(GoneError, match="of its export log of east is before what is kept"):
            await past.at({EAST: export})
        with pytest.raises(GoneError, match=rf"{time_text(at_ms)} of east is before what is kept"):
            await ask(east, str(at_ms))
        oldest_told = Position(EAST, own.log_id, await first_seq(east))
        other = replace(oldest_told, log_id=LogId("0" * 32))
        with pytest.raises(GoneError, match=r"re-created: .*, at the latest since 2023-"):
            await past.at({EAST: other})
        # Where the log was cut no record tells the transaction, so there is no shared position.
        assert (await past.at({EAST: oldest_told})).shared == {}


async def first_seq(meshd: Running) -> Seq:
    return oldest((await open_log(meshd.kv, SPACE, LOCAL)).snapshot).seq


@pytest.mark.looptime
async def test_what_is_folded_and_not_written_yet_comes_later() -> None:
    mesh = Mesh(("east", "west"), overrides=SHORT)
    async with mesh.running("east") as east, mesh.running("west") as west:
        await west.submit(service())
        await east.submit(service())
        await east.until_ready("west")
        await east.until(lambda: durable(east, WEST))
        own = east.parts.node.projector.log_vector()[EAST]
        east.parts.node.leadership.fence = lambda: None  # type: ignore[method-assign]
        for peer in east.parts.node.peers:
            peer.store._copy.fence = lambda: None
        await flap(west, 77)
        await east.until_count("shop/web", 1)
        peer_at = east.parts.node.projector.log_vector()[WEST]
        with pytest.raises(TransientError, match="is not in the own etcd yet"):
            await east.parts.node.past.at({EAST: own, WEST: peer_at})


@pytest.mark.looptime
@pytest.mark.parametrize("is_written", [True, False])
async def test_of_a_log_that_is_empty_nothing_is_known_and_its_place_is_told(
    is_written: bool,
) -> None:
    """A peer that founded its etcd and said nothing yet is in nobody's way."""
    mesh = Mesh(("east", "west", "south"), overrides=SHORT)
    mine = identity_of(mesh.settings("west"))
    await ensure_log(MemoryKv(mesh.etcds["west"]), SPACE, mine, mesh.clock, SeededChance(9))
    async with mesh.running("east") as east:
        if not is_written:
            for peer in east.parts.node.peers:
                peer.store._copy.fence = lambda: None
        await east.submit(service(), endpoint("shop/web/a"))
        await east.until(lambda: east.parts.node.projector.head(WEST) is not None)
        await asyncio.sleep(5)
        stored_log = LogName("replica", WEST)
        if is_written:
            assert (await open_log(east.kv, SPACE, stored_log)).head.seq == 0
        else:
            with pytest.raises(NotFoundError):
                await open_log(east.kv, SPACE, stored_log)
        now = east.parts.node.past.now()
        assert now.at[WEST].seq == 0
        by_time = await ask(east, str(mesh.clock.wall_ms()))
        assert (set(by_time.states), by_time.unknown) == ({EAST}, (SOUTH, WEST))
        page = await east.parts.node.trails.read(Subject.parse("service", "shop/web"), 10)
        assert (len(page.steps), page.unknown) == (1, (SOUTH, WEST))
        for vector in (now.at, now.shared):
            moment = await ask(east, format_vector(vector))
            assert (moment.at, moment.unknown) == (now.at, (SOUTH,))
            assert moment.states == now.states
            assert told(moment) == told(now)
        with pytest.raises(RejectedError, match="seq 1 of west is not reached yet"):
            await east.parts.node.past.at({**now.at, WEST: later(now.at[WEST])})
        async with mesh.running("west") as west:
            await west.submit(service())
            if is_written:
                await east.until_ready("west")
                await east.until(lambda: durable(east, WEST))
                assert (await ask(east, format_vector(now.at))).states == now.states


@pytest.mark.looptime
async def test_places_inside_a_transaction() -> None:
    """A position that an event stream named stands for just that event; no shared one does."""
    mesh = Mesh(("east",))
    async with mesh.running("east") as east:
        await east.submit(service(is_shared=False), endpoint("shop/web/a"), endpoint("shop/web/b"))
        await east.submit(service())
        at = east.parts.node.projector.log_vector()[EAST]
        whole = await ask(east, str(at))
        inside = await ask(east, str(replace(at, seq=Seq(at.seq - 2))))
        assert set(whole.shared) == {EAST}
        assert inside.shared == {}
        assert inside.states[EAST].seq == at.seq - 2
        # Sharing told both endpoints in one transaction: each of its places is its end.
        export = east.parts.node.projector.vector()[EAST]
        for seq in (export.seq, export.seq - 1):
            moment = await ask(east, str(replace(export, seq=Seq(seq))))
            assert moment.at == {EAST: at}
            assert moment.shared == {EAST: export}
        start = await ask(east, str(replace(export, seq=Seq(0))))
        assert start.at == {EAST: replace(at, seq=Seq(0))}
        assert start.states[EAST] == ClusterState()
        assert start.shared == {EAST: replace(export, seq=Seq(0))}


async def _hold(held: asyncio.Event) -> str:
    await held.wait()
    return "told"


@pytest.mark.looptime
async def test_only_some_look_back_at_a_time_and_only_some_wait() -> None:
    async with Mesh(("east",)).running("east") as east:
        past, held = east.parts.node.past, asyncio.Event()
        most = FOLDING_MAX + WAITING_MAX
        async with asyncio.TaskGroup() as tasks:
            looking = [tasks.create_task(past.look_back(lambda: _hold(held))) for _ in range(most)]
            await asyncio.sleep(1)
            with pytest.raises(OverloadedError, match="earlier states is full"):
                await past.look_back(lambda: _hold(held))
            held.set()
        assert [task.result() for task in looking] == ["told"] * most
        assert await past.look_back(lambda: _hold(held)) == "told"


@pytest.mark.looptime
async def test_moments_are_remembered_and_not_for_ever() -> None:
    async with Mesh(("east",)).running("east") as east:
        past = east.parts.node.past
        places = []
        for number in range(1, REMEMBERED + 2):
            await flap(east, number)
            places.append(str(east.parts.node.projector.log_vector()[EAST]))
        first = [await ask(east, place) for place in places[:REMEMBERED]]
        for place, moment in zip(places, first, strict=False):
            assert (await ask(east, place)).states[EAST] is moment.states[EAST]
        await ask(east, places[-1])
        assert (await ask(east, places[0])).states[EAST] is not first[0].states[EAST]
        assert len(past._moments) == REMEMBERED
        assert len(past._states) == REMEMBERED


@pytest.mark.looptime
async def test_what_changes_while_it_is_read_is_read_again() -> None:
    """A cut takes the snapshot away that was to be read; then there is another answer."""
    mesh = Mesh(("east",), overrides=SHORT)
    async with mesh.running("east") as east:
        for number in range(25):
            await flap(east, 1 + number)
            await asyncio.sleep(0.3)
        await asyncio.sleep(3)
        log = await open_log(east.kv, SPACE, LOCAL)
        assert log.snapshot is not None
        first = log.snapshot.kept[0]
        place = Position(EAST, log.head.log_id, Seq(first + 1))
        assert (await ask(east, str(place))).states[EAST].seq == first + 1
        await east.kv.commit(Txn(success=(Delete(SPACE.local.kept_manifest(first)),)))
        place = replace(place, seq=Seq(first + 2))
        with pytest.raises(CorruptError, match="its kept snapshot is gone"):
            await ask(east, str(place))
        tries = 0

        async def once_more() -> str:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise CorruptError("a log", "was cut")
            return "told"

        assert await east.parts.node.past.look_back(once_more) == "told"
