"""Two real meshds on in-memory etcds, served over real HTTP, for commands to talk to.

The command line runs an event loop of its own, so these live in a thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from click.testing import CliRunner, Result

from meshd.cli.main import cli
from meshd.client import Client, Target, wait_converged
from meshd.client.reports import Agreement
from meshd.client.waiting import wait_until
from meshd.edges.http.app import serve
from tests.mesh import Mesh

T = TypeVar("T")

NAMES = ("east", "west")
START_TIMEOUT_S = 30


@dataclass(slots=True)
class Servers:
    """Where the meshds are. Leaving them running costs the next test nothing but its own names."""

    urls: dict[str, str] = field(default_factory=dict)
    started: threading.Event = field(default_factory=threading.Event)
    stop: Callable[[], object] = lambda: None
    error: BaseException | None = None

    def run(self) -> None:
        """Run in a thread of its own."""
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 it is raised again where it is waited for
            self.error = error
        finally:
            self.started.set()

    async def _run(self) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.stop = lambda: loop.call_soon_threadsafe(stopping.set)
        mesh = Mesh(
            NAMES, overrides=("api.listen=127.0.0.1:0", "replication.heartbeat_every_s=0.1")
        )
        async with AsyncExitStack() as stack:
            for name in NAMES:
                running = await stack.enter_async_context(mesh.running(name))
                serving = serve(running.parts.node, running.settings)
                address = await stack.enter_async_context(serving)
                self.urls[name] = f"http://{address}"
            self.started.set()
            await stopping.wait()

    def converge(self) -> None:
        """Wait until both have read what the other has, and have heard that of each other."""

        async def wait() -> None:
            async with AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(Client(Target(url=url)))
                    for url in self.urls.values()
                ]
                await wait_converged(clients, START_TIMEOUT_S)
                for client in clients:
                    what = f"{client.url} to hear what the others have read"
                    await wait_until(client.verify, _is_heard, what=what, timeout_s=START_TIMEOUT_S)

        aside(lambda: asyncio.run(wait()))


def _is_heard(report: Agreement) -> bool:
    return {one["vector_text"] for one in report["clusters"]} == {report["vector_text"]}


def aside(call: Callable[[], T]) -> T:
    """Call in a thread of its own: `asyncio.run` would forget the main thread's event loop, which
    pytest-asyncio keeps there.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Give two meshds, east and west, that follow each other."""
    found = Servers()
    thread = threading.Thread(target=found.run, name="meshds")
    thread.start()
    found.started.wait(START_TIMEOUT_S)
    if found.error is not None:
        raise found.error
    yield found
    found.stop()
    thread.join(START_TIMEOUT_S)
    assert not thread.is_alive()
    assert found.error is None, found.error


Meshd = Callable[..., Result]


@pytest.fixture
def meshd(monkeypatch: pytest.MonkeyPatch) -> Meshd:
    """Run the command line: `meshd('get', 'services', input='...')`."""
    for name in ("URL", "TOKEN", "TOKEN_FILE", "CONFIG", "CA_FILE", "CERT_FILE", "KEY_FILE"):
        monkeypatch.delenv(f"MESHD_{name}", raising=False)

    def run(*arguments: str, **more: object) -> Result:
        result: Result = aside(
            lambda: CliRunner().invoke(cli, arguments, **more)  # type: ignore[arg-type]
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def east(servers: Servers, monkeypatch: pytest.MonkeyPatch, meshd: Meshd) -> Meshd:
    """Run the command line against east."""
    monkeypatch.setenv("MESHD_URL", servers.urls["east"])
    return meshd
