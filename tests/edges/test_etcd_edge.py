"""The etcd edge against real etcds that die, hang, refuse, or are none."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd import EtcdKv
from meshd.model.errors import NoSpaceError, OutcomeUnknownError, RejectedError, TransientError
from meshd.runtime.ports import Delete, Kv, KvStatus, ModRevisionIs, Put, Txn, WatchResponse

ConnectTo = Callable[..., EtcdKv]
StartEtcd = Callable[..., Awaitable[EmbeddedEtcd]]


def put(key: bytes, value: bytes = b"v") -> Txn:
    return Txn(success=(Put(key, value),))


async def until_it_answers(kv: Kv) -> KvStatus:
    """Ask until etcd is there again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await kv.status()
            except TransientError:
                await asyncio.sleep(0.05)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what only asking can tell."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 nobody tells when
            await asyncio.sleep(0.02)


def threads_states(pid: int) -> set[str]:
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return {stat.read_text().rpartition(") ")[2][0] for stat in threads}


@asynccontextmanager
async def stopped(etcd: EmbeddedEtcd) -> AsyncIterator[None]:
    """Let an etcd hang."""
    pid = etcd.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    async def all_threads_stand_still() -> bool:
        return threads_states(pid) == {"T"}

    try:
        await until(all_threads_stand_still)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listener(address: str, answer: Answer) -> AsyncIterator[None]:
    """Listen on an address and do with every connection what `answer` does."""
    host, _, port = address.rpartition(":")
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError):
            await answer(reader, writer)

    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(serve, host, int(port))
        stack.callback(server.close)
        yield
    for _ in range(5):
        # What the kernel had accepted is handed to `serve` in the loop's next turns.
        await asyncio.sleep(0)
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


FILLING_MB_MAX = 400
"""etcd knows how large it is every 100 ms, in which a fast machine writes twenty times a quota."""


async def fill(kv: Kv) -> None:
    """Write until a small quota allows no more."""
    for number in range(FILLING_MB_MAX):
        await kv.commit(put(b"%d" % number, bytes(1_000_000)))


async def test_the_first_endpoint_may_be_dead(
    shared_etcd: EmbeddedEtcd, connect_to: ConnectTo, free_address: Callable[[], str], prefix: bytes
) -> None:
    alive = shared_etcd.config.client_address
    kv = connect_to(alive, endpoints=(free_address(), alive))
    await kv.commit(put(prefix))
    assert (await kv.range(prefix)).count == 1
    async with kv.watch(prefix, b"", start_revision=1) as responses:
        assert (await anext(responses)).is_created


async def test_nobody_at_any_endpoint(
    connect_to: ConnectTo, free_address: Callable[[], str], prefix: bytes
) -> None:
    first, second = free_address(), free_address()
    kv = connect_to(first, endpoints=(first, second))
    with pytest.raises(TransientError) as caught:
        await kv.status()
    assert first in str(caught.value)
    assert second in str(caught.value)
    # A write that found nobody was never sent, so its outcome is known.
    with pytest.raises(TransientError):
        await kv.commit(put(prefix))
    with pytest.raises(TransientError):
        await kv.keep_lease(1)
    async with kv.watch(prefix, b"", start_revision=1) as responses:
        with pytest.raises(TransientError):
            await anext(responses)


async def test_a_name_is_resolved_and_an_unknown_one_says_so(
    free_port: int, connect_to: ConnectTo, start_etcd: StartEtcd
) -> None:
    await start_etcd(client_address=f"127.0.0.1:{free_port}")
    assert (await connect_to(f"localhost:{free_port}").status()).revision == 1
    with pytest.raises(TransientError, match=r"nowhere\.invalid:2379"):
        await connect_to("nowhere.invalid:2379").status()


async def test_a_hanging_etcd_costs_a_deadline(etcd: EmbeddedEtcd, connect_to: ConnectTo) -> None:
    kv = connect_to(etcd, call_timeout_s=0.5)
    await kv.commit(put(b"a"))
    address = etcd.config.client_address
    async with stopped(etcd):
        with pytest.raises(TransientError, match=address):
            await kv.range(b"a")
        with pytest.raises(OutcomeUnknownError, match=address):
            await kv.commit(put(b"a"))
        with pytest.raises(OutcomeUnknownError, match=address):
            await kv.commit(Txn(failure=(Delete(b"a"),)))
        with pytest.raises(OutcomeUnknownError):
            await kv.grant_lease(60)
        with pytest.raises(TransientError):
            await kv.keep_lease(1)
        async with kv.watch(b"a", b"", start_revision=1) as responses:
            with pytest.raises(TransientError):
                await anext(responses)
        with pytest.raises(TransientError):
            await connect_to(etcd, call_timeout_s=0.5).commit(put(b"never sent"))
    await until_it_answers(kv)
    # Unknown counts 0 or 1 times, here no telling which; what was never sent did not happen.
    assert (await kv.range(b"never sent")).count == 0


async def test_who_has_no_patience_is_told_before_the_deadline(
    etcd: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    kv = connect_to(etcd, call_timeout_s=60)
    await kv.commit(put(b"a"))
    async with stopped(etcd), asyncio.timeout(20):
        with pytest.raises(OutcomeUnknownError, match=etcd.config.client_address):
            await kv.commit(Txn(success=(Put(b"a", b"2"),), patience_s=0.2))


async def test_patience_is_for_the_answer_and_not_for_finding_who_is_asked(
    shared_etcd: EmbeddedEtcd, connect_to: ConnectTo, free_address: Callable[[], str], prefix: bytes
) -> None:
    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    alive, silent = shared_etcd.config.client_address, free_address()
    kv = connect_to(alive, endpoints=(silent, alive), connect_timeout_s=1, call_timeout_s=20)
    async with listener(silent, never):
        await kv.commit(Txn(success=(Put(prefix, b"1"),), patience_s=0.5))
    assert (await kv.range(prefix)).count == 1


async def test_the_next_endpoint_is_taken_when_one_hangs(
    start_etcd: StartEtcd, connect_to: ConnectTo
) -> None:
    first, second = await start_etcd(), await start_etcd()
    await connect_to(second).commit(put(b"second"))
    addresses = (first.config.client_address, second.config.client_address)
    kv = connect_to(first, endpoints=addresses, call_timeout_s=0.5)
    assert (await kv.range(b"second")).count == 0
    async with stopped(first):
        with pytest.raises(TransientError):
            await kv.range(b"second")
        assert (await kv.range(b"second")).count == 1
        async with kv.watch(b"second", b"", start_revision=1) as responses:
            assert (await anext(responses)).is_created


async def test_a_write_whose_answer_is_lost_is_unknown_and_done(
    etcd: EmbeddedEtcd, connect_to: ConnectTo, free_address: Callable[[], str]
) -> None:
    host, _, port = etcd.config.client_address.rpartition(":")
    is_mute = False

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool) -> None:
        while data := await reader.read(65_536):
            if not (back and is_mute):
                writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, up_writer, back=False))
            group.create_task(copy(up_reader, writer, back=True))

    proxy = free_address()
    async with listener(proxy, forward):
        kv = connect_to(proxy, call_timeout_s=1.0)
        head = (await kv.commit(put(b"head"))).revision
        is_mute = True
        append = Txn((ModRevisionIs(b"head", head),), (Put(b"head", b"mine"),))
        with pytest.raises(OutcomeUnknownError):
            await kv.commit(append)
        direct = connect_to(etcd)
        assert (await direct.range(b"head")).kvs[0].value == b"mine"
        # Here is why nobody may repeat it blindly: the second try says that it lost.
        assert not (await direct.commit(append)).succeeded
        await kv.close()


async def answer_like_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def answer_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(bytes(range(256)) * 10)
    writer.close()


@pytest.mark.parametrize("answer", [answer_like_http, answer_garbage])
async def test_something_else_than_an_etcd_is_named(
    answer: Answer,
    connect_to: ConnectTo,
    free_address: Callable[[], str],
) -> None:
    address = free_address()
    async with listener(address, answer):
        kv = connect_to(address, call_timeout_s=1.0)
        with pytest.raises(TransientError, match=f"{address} can't be reached or is no etcd"):
            await kv.status()
        with pytest.raises(TransientError, match=address):
            await kv.commit(put(b"a"))
        await kv.close()


@pytest.fixture
def silent(free_address: Callable[[], str]) -> Iterator[str]:
    """Give an address where connections are taken and nothing is ever said."""
    address = free_address()
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))):
        yield address


async def test_somebody_silent_is_named(connect_to: ConnectTo, silent: str) -> None:
    kv = connect_to(silent, call_timeout_s=0.5)
    with pytest.raises(TransientError, match=f"{silent} can't be reached or is no etcd"):
        await kv.status()
    with pytest.raises(TransientError, match=silent):
        await kv.commit(put(b"a"))


async def test_somebody_silent_does_not_keep_the_next_from_being_tried(
    shared_etcd: EmbeddedEtcd, connect_to: ConnectTo, silent: str
) -> None:
    alive = shared_etcd.config.client_address
    kv = connect_to(alive, endpoints=(silent, alive), connect_timeout_s=0.3)
    assert (await kv.status()).revision >= 1


async def follow_log(kv: Kv, seen: list[int], total: int) -> None:
    """Follow until `total` revisions were seen, over as many watches as it takes."""
    while len(seen) < total:
        start = seen[-1] + 1 if seen else 2
        with suppress(TransientError):
            async with kv.watch(b"log/", b"log0", start_revision=start) as responses:
                while len(seen) < total:
                    seen.extend(e.kv.mod_revision for e in (await anext(responses)).events)
        await asyncio.sleep(0.05)


@pytest.mark.kills_etcd
async def test_a_watch_resumes_behind_the_last_whole_response(
    etcd: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    kv, writer, total = connect_to(etcd), connect_to(etcd), 600
    seen: list[int] = []

    async def write() -> None:
        for number in range(total):
            await append(writer, number)

    async def kill() -> None:
        for count in (100, 300):

            async def so_many(count: int = count) -> bool:
                return len(seen) >= count

            await until(so_many)
            assert etcd.pid is not None
            os.kill(etcd.pid, signal.SIGKILL)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        supervisor = group.create_task(etcd.run())
        async with asyncio.TaskGroup() as work:
            work.create_task(write())
            work.create_task(follow_log(kv, seen, total))
            work.create_task(kill())
        supervisor.cancel()
    assert etcd.restarts == 2
    raw = await kv.range(b"log/", b"log0")
    assert [pair.mod_revision for pair in raw.kvs] == seen
    assert len(seen) == total


async def append(kv: Kv, number: int) -> None:
    """Put a key once, however often it takes: by looking after an unknown outcome."""
    key = b"log/%06d" % number
    while True:
        try:
            await kv.commit(Txn((ModRevisionIs(key, 0),), (Put(key, b"v"),)))
        except (TransientError, OutcomeUnknownError):
            await until_it_answers(kv)
        else:
            return


@pytest.mark.kills_etcd
async def test_a_dead_etcd_ends_a_watch(etcd: EmbeddedEtcd, connect_to: ConnectTo) -> None:
    kv = connect_to(etcd)
    async with kv.watch(b"a", b"", start_revision=1) as responses:
        assert (await anext(responses)).is_created
        assert etcd.pid is not None
        os.kill(etcd.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            with pytest.raises(TransientError, match=etcd.config.client_address):
                await anext(responses)


async def test_a_full_etcd_says_so(start_etcd: StartEtcd, connect_to: ConnectTo) -> None:
    kv = connect_to(await start_etcd(quota_bytes=4_000_000))
    lease = await kv.grant_lease(60)
    with pytest.raises(NoSpaceError):
        await fill(kv)
    with pytest.raises(NoSpaceError):
        await kv.grant_lease(60)
    assert await kv.keep_lease(lease) > 0
    assert (await kv.range(b"0")).count == 1
    if not (await kv.status()).version.startswith("3.5."):
        # The early ones of 3.5 refuse a transaction even if all that it does is make room.
        await kv.commit(Txn(success=(Delete(b"0"),)))
        assert (await kv.range(b"0")).count == 0


async def test_an_etcd_with_a_full_disk_quota_starts_again(
    start_etcd: StartEtcd, connect_to: ConnectTo
) -> None:
    etcd = await start_etcd(quota_bytes=4_000_000)
    kv = connect_to(etcd)
    with pytest.raises(NoSpaceError):
        await fill(kv)
    await etcd.stop()
    await etcd.start()
    assert (await until_it_answers(kv)).db_size_bytes > 4_000_000


async def watchers(etcd: EmbeddedEtcd) -> float:
    """How many watchers the server holds, as it says itself."""
    host, _, port = etcd.config.client_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    name = "etcd_debugging_mvcc_watcher_total "
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


async def test_no_watcher_stays_behind(etcd: EmbeddedEtcd, connect_to: ConnectTo) -> None:
    kv = connect_to(etcd)

    async def follow(created: asyncio.Semaphore) -> None:
        async with kv.watch(b"a", b"", start_revision=100) as responses:
            # Held, so that it isn't the garbage collector that ends it.
            held.append(responses)
            await anext(responses)
            created.release()
            await anext(responses)

    held: list[AsyncIterator[WatchResponse]] = []
    created = asyncio.Semaphore(0)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(created)) for _ in range(40)]
        for _ in range(20):
            await created.acquire()
        # Some wait for a change, some are just being made.
        for task in tasks:
            task.cancel()

    async def none_is_left() -> bool:
        return await watchers(etcd) == 0

    await until(none_is_left)
    assert len(held) == 40


async def test_a_long_response_comes_in_parts_that_fit(
    shared_etcd: EmbeddedEtcd, connect_to: ConnectTo, prefix: bytes
) -> None:
    kv = connect_to(shared_etcd, receive_bytes_max=4 * 1024 * 1024)
    revisions = [(await kv.commit(put(prefix, bytes(1_000_000)))).revision for _ in range(12)]
    seen: list[int] = []
    async with asyncio.timeout(20), kv.watch(prefix, b"", start_revision=revisions[0]) as responses:
        while len(seen) < 12:
            seen.extend(e.kv.mod_revision for e in (await anext(responses)).events)
    assert seen == revisions


async def test_an_answer_that_is_too_large_is_not_asked_for_again(
    shared_etcd: EmbeddedEtcd, connect_to: ConnectTo, prefix: bytes
) -> None:
    kv = connect_to(shared_etcd, receive_bytes_max=100_000)
    await kv.commit(put(prefix, bytes(200_000)))
    with pytest.raises(RejectedError):
        await kv.range(prefix)


async def test_closing_in_mid_call(etcd: EmbeddedEtcd, connect_to: ConnectTo) -> None:
    kv = connect_to(etcd)
    await kv.commit(put(b"a"))

    async def ends(call: Awaitable[object], error: type[Exception]) -> None:
        with pytest.raises(error):
            await call

    async def follow(responses: AsyncIterator[WatchResponse]) -> None:
        assert (await anext(responses)).is_created
        following.set()
        with pytest.raises(TransientError):
            await anext(responses)

    following = asyncio.Event()
    async with (
        kv.watch(b"a", b"", start_revision=3) as responses,
        asyncio.timeout(20),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(follow(responses))
        await following.wait()
        async with stopped(etcd):
            group.create_task(ends(kv.range(b"a"), TransientError))
            group.create_task(ends(kv.commit(put(b"a")), OutcomeUnknownError))
            # They are sent in the loop's next turns.
            for _ in range(5):
                await asyncio.sleep(0.01)
            await kv.close()


async def test_a_cancelled_call_is_just_cancelled(
    etcd: EmbeddedEtcd, connect_to: ConnectTo
) -> None:
    kv = connect_to(etcd)
    await kv.commit(put(b"a"))
    async with stopped(etcd), asyncio.timeout(20):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(kv.range(b"a"))
            await asyncio.sleep(0.01)
            task.cancel()
        assert task.cancelled()
    assert (await until_it_answers(kv)).revision == 2
