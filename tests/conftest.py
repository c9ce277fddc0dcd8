"""What tests of several rooms share: a real etcd and addresses."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_asyncio
import structlog
from xdist.scheduler import LoadScopeScheduling

from chaos.brokers import OPEN, Broker, Subscriber
from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from meshd.edges.embedded.binary import is_unsafe
from meshd.edges.etcd import EtcdKv, EtcdTarget, connect

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile("meshd", deadline=None)
hypothesis.settings.load_profile("meshd")

StartEtcd = Callable[..., Awaitable[EmbeddedEtcd]]
NewBroker = Callable[..., Awaitable[Broker]]
Subscribe = Callable[..., Awaitable[Subscriber]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills", default="5", help="how often fault 1 kills meshd; the catalogue asks for 50"
    )
    parser.addoption(
        "--log-events", default="20000", help="how long a log is that is read on; 100000 asked for"
    )
    parser.addoption(
        "--registrations", default="200", help="how many are renewed; the issue asks for 10000"
    )
    parser.addoption(
        "--renew-for-s", default="12", help="for how long, in seconds; the issue asks for 300"
    )
    parser.addoption(
        "--ttl-s", default="6", help="their time to live; 60 for as many as the issue asks for"
    )
    parser.addoption(
        "--kill-for-s", default="2", help="for how long a broker and a meshd are gone; 20 asked for"
    )
    parser.addoption("--load-per-s", default="50", help="writes a second while they are")
    parser.addoption(
        "--subscribers", default="100", help="of event streams; the issue asks for 1000"
    )
    parser.addoption(
        "--stopped", default="20", help="how many of them read nothing; the issue asks for 200"
    )
    parser.addoption(
        "--hold-for-s", default="20", help="for how long, in seconds; the issue asks for 600"
    )
    parser.addoption(
        "--all-faults", action="store_true", help="inject every fault of the catalogue, not a few"
    )
    parser.addoption(
        "--all-benches", action="store_true", help="try every part of the benches, not a few"
    )
    parser.addoption(
        "--write-docs", action="store_true", help="write docs with what their commands print"
    )


@pytest.fixture
def _all_benches(request: pytest.FixtureRequest) -> None:
    """Skip what takes a minute to measure nothing, unless it is asked for."""
    if not request.config.getoption("--all-benches"):
        pytest.skip("tried with --all-benches")


def pytest_configure() -> None:
    """Say that there is no event loop, or looptime makes one for every test that isn't async."""
    asyncio.set_event_loop(None)
    # Where a test reads what a command prints, a meshd in the same process must not print into it.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.__stderr__))


TOGETHER = ("tests/e2e/test_chaos_toolkit.py", "tests/e2e/test_demo.py")
"""Modules whose tests share what takes long to make: one worker runs all of each."""


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist shows no types
    """One test after the other to whichever worker is free. The mark `xdist_group`, which is for
    this, has no effect with pytest 9.2: xdist 3.8 writes it into a field that is gone.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module in TOGETHER else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """Take the place of the scheduler that `--dist` names."""
    return _Scheduling(config, log)


def _find_etcd() -> Path | None:
    found = shutil.which("etcd")
    return Path(found) if found else None


def _version(program: Path) -> tuple[int, int, int]:
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    major, minor, patch = answer.stdout.splitlines()[0].rpartition(" ")[2].split(".")
    return int(major), int(minor), int(patch.split("-")[0])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kills_etcd"):
        program = _find_etcd()
        if program is not None and is_unsafe(_version(program)):
            pytest.skip(
                f"{program} is etcd 3.5.0 to 3.5.2, which LOSES ACKNOWLEDGED WRITES when killed: "
                "nothing that kills it is proved on this machine"
            )


@pytest.fixture(scope="session")
def etcd_binary() -> Path:
    """The etcd on PATH."""
    found = _find_etcd()
    if found is None:
        pytest.fail("there is no etcd on PATH: run `make test`, which sees to it")
    return found


# 127.0.0.0/8 is all ours: with addresses by process id no two runs of pytest and no two workers of
# xdist can take each other's port between choosing and using it.
_numbers = itertools.count(1)
_PORT = 20_379


def _free_address() -> str:
    while True:
        number = next(_numbers)
        pid = os.getpid()
        host = f"127.{1 + (pid >> 8) % 254}.{pid & 255}.{1 + number % 254}"
        address = (host, _PORT + number // 254)
        with socket.socket() as probe:
            try:
                probe.bind(address)
            except OSError:
                continue
        return f"{host}:{address[1]}"


@pytest.fixture(scope="session")
def free_address() -> Callable[[], str]:
    """Give a new 'host:port' on loopback at each call."""
    return _free_address


@pytest.fixture
def free_port() -> int:
    """Give a port of 127.0.0.1 that nobody listens on, and another to each process."""
    for port in range(30_000 + os.getpid() * 7 % 20_000, 65_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")


def _config(data_dir: Path, program: Path) -> EmbeddedConfig:
    return EmbeddedConfig(
        data_dir=data_dir,
        client_address=_free_address(),
        peer_address=_free_address(),
        binary=program,
        # What may not be killed with these is marked; all else works.
        allow_unsafe=True,
    )


@pytest.fixture
def etcd_config(tmp_path: Path, etcd_binary: Path) -> EmbeddedConfig:
    """Give the configuration of an etcd that nobody has started yet."""
    return _config(tmp_path / "meshd", etcd_binary)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_etcd(
    tmp_path_factory: pytest.TempPathFactory, etcd_binary: Path
) -> AsyncIterator[EmbeddedEtcd]:
    """One etcd for all tests of a worker that keep to keys of their own (`prefix`).

    A test leaves no lease behind: its end would change the revision in the middle of another.
    """
    async with EmbeddedEtcd(_config(tmp_path_factory.mktemp("etcd"), etcd_binary)) as etcd:
        yield etcd


@pytest.fixture
async def start_etcd(tmp_path: Path, etcd_binary: Path) -> AsyncIterator[StartEtcd]:
    """Start any number of etcds: `await start_etcd(**changes of its EmbeddedConfig)`."""
    async with AsyncExitStack() as stack:

        async def start(**changes: object) -> EmbeddedEtcd:
            config = _config(tmp_path / f"etcd-{next(_numbers)}", etcd_binary)
            etcd = EmbeddedEtcd(replace(config, **changes))  # type: ignore[arg-type]
            return await stack.enter_async_context(etcd)

        yield start


@pytest.fixture
async def etcd(start_etcd: StartEtcd) -> EmbeddedEtcd:
    """Give an etcd that the test has for itself, to stop, kill or fill."""
    return await start_etcd()


@pytest.fixture
async def new_broker(tmp_path: Path) -> AsyncIterator[NewBroker]:
    """Start an MQTT broker: `await new_broker(*lines of its configuration)`."""
    if shutil.which("mosquitto") is None:
        pytest.fail("there is no mosquitto on PATH: run `make test`, which sees to it")
    async with AsyncExitStack() as stack:

        async def start(*lines: str, address: str = "") -> Broker:
            folder = tmp_path / f"broker-{next(_numbers)}"
            folder.mkdir()
            broker = Broker(address or _free_address(), folder, lines or OPEN)
            stack.push_async_callback(broker.stop)
            await broker.start()
            return broker

        yield start


@pytest.fixture
async def subscribe(tmp_path: Path) -> AsyncIterator[Subscribe]:
    """Run a mosquitto_sub: `await subscribe(broker, *filters, session='', more=())`."""
    async with AsyncExitStack() as stack:

        async def start(
            broker: Broker, *filters: str, session: str = "", more: Sequence[str] = ()
        ) -> Subscriber:
            file = tmp_path / f"subscriber-{next(_numbers)}"
            subscriber = Subscriber(broker, file, filters or ("#",), session, more)
            stack.push_async_callback(subscriber.stop)
            await subscriber.start()
            return subscriber

        yield start


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> bytes:
    """Give a key prefix that no other test uses."""
    return f"/test/{next(_numbers)}/{request.node.name}/".encode()


@pytest.fixture
async def connect_to() -> AsyncIterator[Callable[..., EtcdKv]]:
    """Connect to an address or an etcd: `connect_to(etcd, **changes of its EtcdTarget)`."""
    async with AsyncExitStack() as stack:

        def to(where: EmbeddedEtcd | str, **changes: object) -> EtcdKv:
            address = where if isinstance(where, str) else where.config.client_address
            target = EtcdTarget(endpoints=(address,))
            kv = connect(replace(target, **changes))  # type: ignore[arg-type]
            stack.push_async_callback(kv.close)
            return kv

        yield to
