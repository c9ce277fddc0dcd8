"""Publishing by real meshds to a real mosquitto, while either of them is stopped or killed.

The issue's Show 2: `pytest tests/e2e/test_mqtt.py -s -k show --timeout 600 --kill-for-s 20
--load-per-s 200`.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from chaos.brokers import Broker, Heard, Subscriber
from tests.conftest import NewBroker, Subscribe
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_daemon import SERVICE, put
from tests.e2e.test_ha import follows, leads

EVENTS = "meshd/mesh/east/events/#"
TABLES = "meshd/mesh/east/tables/#"
STATUS = "meshd/mesh/east/status"
UNTIL_S = 60.0


def to(broker: Broker, *more: str) -> tuple[str, ...]:
    return (f"mqtt.broker={broker.address}", *more)


def publishes(status: dict[str, dict[str, object]]) -> bool:
    return status["mqtt"]["phase"] == "Publishing"


def is_in(phase: str, status: dict[str, dict[str, object]]) -> bool:
    return status["mqtt"]["phase"] == phase


def is_done(status: dict[str, dict[str, object]]) -> bool:
    return publishes(status) and status["mqtt"]["behind_events"] == 0


def seqs(heard: Sequence[Heard]) -> list[int]:
    return [int(one.user["meshdseq"]) for one in heard if "meshdseq" in one.user]


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(UNTIL_S):
        while not what():  # noqa: ASYNC110 of another process
            await asyncio.sleep(0.05)


@dataclass(slots=True)
class Load:
    """Writes at a rate, to whichever meshd answers, each until it is done. took_s: how long each
    answered request took, with when it was answered.
    """

    daemons: list[Daemon]
    per_s: float
    took_s: list[tuple[float, float]] = field(default_factory=list)
    written: int = 0
    is_over: bool = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write until the end of the block, where the last write is done."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run())
            try:
                yield
            finally:
                self.is_over = True

    async def _run(self) -> None:
        begun_s = time.monotonic()
        while not self.is_over:
            await self._write(self.written)
            self.written += 1
            due_s = begun_s + self.written / self.per_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _write(self, number: int) -> None:
        path = f"/v1/services/shop/web/endpoints/e{number % 500}"
        body = {"address": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"}
        while True:
            asked_s = time.monotonic()
            if await put(self.daemons[0], path, body, key=f"key-{number}") in {200, 201}:
                now_s = time.monotonic()
                self.took_s.append((now_s, now_s - asked_s))
                return
            self.daemons.append(self.daemons.pop(0))
            await asyncio.sleep(0.05)

    def median_ms(self, first_s: float, last_s: float) -> float:
        took = sorted(took for at, took in self.took_s if first_s <= at <= last_s)
        return took[len(took) // 2] * 1000 if took else 0.0


def check_stream(heard: Sequence[Heard], head: int) -> None:
    """Every event at least once, first occurrences in order; a repetition is the same event."""
    assert list(dict.fromkeys(seqs(heard))) == list(range(1, head + 1))
    events = [one for one in heard if "meshdseq" in one.user]
    assert len({one.user["id"] for one in events}) == head
    assert len({(one.user["id"], one.payload) for one in events}) == head


async def test_show_2_neither_the_brokers_nor_a_meshds_end_loses_or_reorders_an_event(
    new_etcd: NewEtcd,
    run_daemon: RunDaemon,
    new_broker: NewBroker,
    subscribe: Subscribe,
    pytestconfig: pytest.Config,
) -> None:
    kill_for_s = float(pytestconfig.getoption("--kill-for-s"))
    per_s = float(pytestconfig.getoption("--load-per-s"))
    etcd, broker = await new_etcd(), await new_broker()
    subscriber = await subscribe(broker, EVENTS, session="reader")
    begun_s = time.monotonic()
    async with AsyncExitStack() as stack:
        async with run_daemon("east", 1, etcd.endpoints, None, *to(broker)) as first:
            await put(first, "/v1/services/shop/web", SERVICE)
            load = Load([first], per_s)
            await stack.enter_async_context(load.running())
            await until(lambda: len(seqs(subscriber.heard())) > 2 * per_s)
            down_s = time.monotonic()
            await broker.stop()
            await asyncio.sleep(kill_for_s)
            up_s = time.monotonic()
            await broker.start()
            await first.until("/v1/status", publishes)
            await until(lambda: len(seqs(subscriber.heard())) > 3 * per_s)
            print(
                f"REST, median: {load.median_ms(begun_s, down_s):.1f} ms with the broker, ", end=""
            )
            print(f"{load.median_ms(down_s, up_s):.1f} ms without")
            first.kill()
            await first.process.wait()
        await asyncio.sleep(kill_for_s)
        async with run_daemon("east", 1, etcd.endpoints, None, *to(broker)) as second:
            load.daemons[:] = [second]
            done = load.written + round(per_s)
            await until(lambda: load.written >= done)
            await stack.aclose()
            status = await second.until("/v1/status", is_done)
            head = status["local"]["seq"]
            await until(lambda: head in seqs(subscriber.heard()))
    heard = subscriber.heard()
    check_stream(heard, head)
    print(f"{head} events, {len(seqs(heard)) - head} of them told again; {load.written} writes")


async def test_two_leaders_one_after_the_other_leave_no_gap_and_the_former_one_is_silent(
    new_etcd: NewEtcd, run_daemon: RunDaemon, new_broker: NewBroker, subscribe: Subscribe
) -> None:
    etcd, broker = await new_etcd(), await new_broker()
    subscriber = await subscribe(broker, EVENTS)
    states = await subscribe(broker, STATUS)
    async with (
        run_daemon("east", 1, etcd.endpoints, None, *to(broker)) as first,
        run_daemon("east", 1, etcd.endpoints, None, *to(broker)) as second,
    ):
        await put(first, "/v1/services/shop/web", SERVICE)
        await first.until("/v1/status", leads)
        await second.until("/v1/status", follows)
        async with Load([second], 50).running():
            await until(lambda: len(seqs(subscriber.heard())) > 50)
            first.kill(signal.SIGSTOP)
            try:
                await second.until("/v1/status", publishes)
                before = len(seqs(subscriber.heard()))
                await until(lambda: len(seqs(subscriber.heard())) > before + 50)
            finally:
                first.kill(signal.SIGCONT)
            await first.until("/v1/status", lambda told: told["mqtt"]["phase"] == "Standby")
            before = len(seqs(subscriber.heard()))
            await until(lambda: len(seqs(subscriber.heard())) > before + 50)
        status = await second.until("/v1/status", is_done)
        head = status["local"]["seq"]
        await until(lambda: head in seqs(subscriber.heard()))
        assert publishes(await second.get("/v1/status"))
        # Before they end, one after the other, and the first one leads again.
        told, said = subscriber.heard(), states.heard()
    heard = seqs(told)
    check_stream(told, head)
    # Of the former leader nothing came after the new one's first: what is repeated is one run.
    back = [one for one, other in pairwise(heard) if other <= one]
    assert len(back) <= 1
    apis = [one.data["leader"]["api"] for one in said if one.data["state"] == "live"]
    assert list(dict.fromkeys(apis)) == [first.api, second.api]
    assert apis == sorted(apis, key=[first.api, second.api].index)
    assert "Traceback" not in first.log_file.read_text() + second.log_file.read_text()


async def test_a_broker_that_is_never_there_or_turns_us_away_leaves_meshd_ready(
    new_etcd: NewEtcd,
    run_daemon: RunDaemon,
    new_broker: NewBroker,
    free_address: Callable[[], str],
    tmp_path: Path,
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    users = tmp_path / "users"
    users.touch()
    broker = await new_broker("allow_anonymous false", f"password_file {users}")
    etcd, other = await new_etcd(), await new_etcd()
    credentials = ("mqtt.username=ann", f"mqtt.password_file={password}")
    async with (
        run_daemon("east", 1, etcd.endpoints, None, f"mqtt.broker={free_address()}") as east,
        run_daemon("west", 2, other.endpoints, None, *to(broker, *credentials)) as west,
    ):
        for daemon, phase, reason in (
            (east, "Waiting", "can't be reached"),
            (west, "Refused", "Not authorized"),
        ):
            assert await put(daemon, "/v1/services/shop/web", SERVICE) in {200, 201}
            status = await daemon.until("/v1/status", partial(is_in, phase))
            assert reason in status["mqtt"]["reason"]
            assert status["ready"] is True
            # What is wrong is said once, however often it is tried.
            said = daemon.log_file.read_text().count("publishing is held up")
            assert said == 1


async def test_a_meshd_that_is_killed_is_told_to_be_gone_and_its_tables_are_mended(
    new_etcd: NewEtcd, run_daemon: RunDaemon, new_broker: NewBroker, subscribe: Subscribe
) -> None:
    etcd, broker = await new_etcd(), await new_broker()
    states = await subscribe(broker, STATUS)
    async with run_daemon("east", 1, etcd.endpoints, None, *to(broker)) as east:
        for name in ("web", "old"):
            await put(east, f"/v1/services/shop/{name}", SERVICE)
        tables = await subscribe(broker, TABLES)
        await until(lambda: len(_latest(tables)) == 2)
        shown = await east.get("/v1/tables/shop/web")
        assert _latest(tables)["shop/web"].data == shown
        east.kill()
        await east.process.wait()
    await until(lambda: states.heard()[-1].data == {"state": "gone", "cluster": "east"})
    async with (
        run_daemon("east", 1, etcd.endpoints) as quiet,
        quiet.http.delete(f"{quiet.url}/v1/services/shop/old") as answer,
    ):
        assert answer.status == 200
    async with run_daemon("east", 1, etcd.endpoints, None, *to(broker)) as east:
        await until(lambda: _latest(tables)["shop/old"].payload == "")
        await until(lambda: states.heard()[-1].data["state"] == "live")
    after = await subscribe(broker, TABLES)
    await until(lambda: list(_latest(after)) == ["shop/web"])
    await until(lambda: states.heard()[-1].data["state"] == "gone")


def _latest(subscriber: Subscriber) -> dict[str, Heard]:
    return {one.topic.partition("/tables/")[2]: one for one in subscriber.heard()}
