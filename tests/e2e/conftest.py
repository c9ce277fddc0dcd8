"""Real daemons on real etcds, as processes, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from chaos.etcds import Etcd, Member
from chaos.wire import Wire

START_TIMEOUT_S = 30.0


@pytest.fixture(autouse=True, scope="package")
def _unmeasured() -> Iterator[None]:
    """Daemons run as people run them, and not under coverage, which makes some three times slower:
    what they do is to be covered by the tests of its rooms.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@dataclass(slots=True)
class Daemon:
    """One `meshd run`: its process, and a client of its REST API."""

    process: asyncio.subprocess.Process
    api: str
    log_file: Path
    http: aiohttp.ClientSession = field(repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.api}"

    async def get(self, path: str) -> Any:
        async with self.http.get(f"{self.url}{path}", ssl=self.tls or True) as response:
            return orjson.loads(await response.read())

    async def until(self, path: str, what: Callable[[Any], bool]) -> Any:
        """Ask until the answer is right; the test's own timeout is the limit. An answer that lacks
        what is looked at isn't right yet: a replica hasn't read so far, a service isn't there.
        """
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, LookupError):
                answer = await self.get(path)
                if what(answer):
                    return answer
            assert self.process.returncode is None, self.log_file.read_text()[-4000:]
            await asyncio.sleep(0.05)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)


def _quoted(addresses: str) -> str:
    return ", ".join(f"'{address}'" for address in addresses.split(","))


RunDaemon = Callable[..., contextlib.AbstractAsyncContextManager[Daemon]]


@pytest.fixture
async def run_daemon(tmp_path: Path, free_address: Callable[[], str]) -> AsyncIterator[RunDaemon]:
    """Run a meshd: `async with run_daemon('east', 1, etcd, peers={'west': address}) as east`.

    With `config` the peers are those of that file.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:

        @asynccontextmanager
        async def run(
            name: str,
            number: int,
            etcd: str,
            peers: dict[str, str] | None = None,
            *more: str,
            tls: ssl.SSLContext | None = None,
            config: Path | None = None,
        ) -> AsyncIterator[Daemon]:
            api = free_address()
            listed = ",".join(
                f"{{name: {peer}, endpoints: [{_quoted(address)}]}}"
                for peer, address in (peers or {}).items()
            )
            overrides = (
                f"cluster.name={name}",
                f"cluster.id={number}",
                f"etcd.endpoints={etcd}",
                f"api.listen={api}",
                *((f"peers=[{listed}]",) if config is None else ()),
                *more,
            )
            given = () if config is None else ("--config", str(config))
            log_file = tmp_path / f"{name}-{api}.log"
            with log_file.open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "meshd",
                    "run",
                    *given,
                    *(part for one in overrides for part in ("--set", one)),
                    stderr=log,
                    stdout=log,
                )
            daemon = Daemon(process, api, log_file, http, tls)
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await daemon.until("/readyz", lambda answer: answer["ready"])
                yield daemon
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(START_TIMEOUT_S):
                    await process.wait()

        yield run


NewEtcd = Callable[..., Awaitable[Etcd]]
NewWire = Callable[[str], Awaitable[Wire]]


@pytest.fixture
async def new_etcd(tmp_path: Path, free_address: Callable[[], str]) -> AsyncIterator[NewEtcd]:
    """Start an etcd that can be broken: `await new_etcd(members=3)`."""
    async with AsyncExitStack() as stack:

        async def start(members: int = 1, *flags: str) -> Etcd:
            folder = tmp_path / f"etcd-{free_address().replace(':', '-')}"
            folder.mkdir()
            names = [f"m{number}" for number in range(members)]
            etcd = Etcd(
                [Member(name, free_address(), free_address(), folder) for name in names], flags
            )
            stack.push_async_callback(etcd.stop)
            await etcd.start()
            return etcd

        yield start


@pytest.fixture
async def new_wire(free_address: Callable[[], str]) -> AsyncIterator[NewWire]:
    """Lay a wire to an address: `await new_wire(etcd.endpoints)`."""
    async with AsyncExitStack() as stack:

        async def lay(target: str) -> Wire:
            return await stack.enter_async_context(Wire(free_address(), target).running())

        yield lay
