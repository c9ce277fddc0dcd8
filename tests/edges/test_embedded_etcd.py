"""The life of the embedded etcd: how it starts, what it refuses, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd, place
from meshd.edges.embedded.config import arguments
from meshd.edges.embedded.orphan import find_orphan
from meshd.edges.etcd import EtcdKv
from meshd.model.errors import FatalError
from meshd.runtime.ports import Put, Txn

ConnectTo = Callable[..., EtcdKv]
PUT = Txn(success=(Put(b"a", b"1"),))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state != "Z"


def start_time_of_self() -> str:
    return Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what only looking can tell."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 nobody tells when
            await asyncio.sleep(0.02)


async def refusal(config: EmbeddedConfig) -> str:
    """Return why it does not start; nothing may be left running or locked."""
    etcd = EmbeddedEtcd(config)
    with pytest.raises(FatalError) as caught:
        await etcd.start()
    assert etcd.pid is None
    return str(caught.value)


async def test_it_starts_stops_and_keeps_its_data(
    etcd_config: EmbeddedConfig, connect_to: ConnectTo
) -> None:
    for revision in (2, 3):
        async with EmbeddedEtcd(etcd_config) as etcd:
            assert (await connect_to(etcd).commit(PUT)).revision == revision
            pid = etcd.pid
            assert pid is not None
            assert find_orphan(etcd_config) == pid
        assert not is_alive(pid)
        assert etcd.pid is None
        await etcd.stop()
    assert etcd_config.data_dir.stat().st_mode & 0o077 == 0


async def test_settings_of_etcd_in_the_environment_do_not_reach_it(
    etcd_config: EmbeddedConfig, connect_to: ConnectTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_DATA_DIR", "/nonexistent")
    monkeypatch.setenv("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")
    async with EmbeddedEtcd(etcd_config) as etcd:
        assert (await connect_to(etcd).status()).revision == 1


@pytest.mark.parametrize("which", ["client_address", "peer_address"])
async def test_a_port_in_use_is_named(etcd_config: EmbeddedConfig, which: str) -> None:
    address: str = getattr(etcd_config, which)
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))):
        why = await refusal(etcd_config)
    assert f"{which}: {address} is in use" in why
    async with EmbeddedEtcd(etcd_config):
        pass


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.1:2379", "not an address of this machine"),
        ("etcd.example:2379", "IP addresses only"),
        ("[2001:db8::1]:2379", "client_address"),
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_named(
    etcd_config: EmbeddedConfig, address: str, why: str
) -> None:
    assert why in await refusal(replace(etcd_config, client_address=address))


async def test_a_data_dir_that_is_a_file_is_named(
    etcd_config: EmbeddedConfig, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    for data_dir in (file, file / "below"):
        why = await refusal(replace(etcd_config, data_dir=data_dir))
        assert str(data_dir) in why
        assert "etcd.embedded.data_dir" in why


async def test_a_data_dir_without_rights_is_named(
    etcd_config: EmbeddedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() == 0:
        # Rights don't stop root; /proc does, and a read-only file system says the same.
        why = await refusal(replace(etcd_config, data_dir=Path("/proc/meshd")))
        assert "/proc/meshd" in why

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(etcd_config.lock_file))

    monkeypatch.setattr("meshd.edges.embedded.place.os.open", refuse)
    with pytest.raises(FatalError, match=r"Permission denied.*etcd\.embedded\.data_dir"):
        place.take_data_dir(etcd_config)


async def test_two_meshds_do_not_share_a_data_dir(
    etcd_config: EmbeddedConfig, free_address: Callable[[], str], connect_to: ConnectTo
) -> None:
    async with EmbeddedEtcd(etcd_config) as etcd:
        other = replace(etcd_config, client_address=free_address(), peer_address=free_address())
        assert "another meshd" in await refusal(other)
        # Above all, the newcomer did not take the other's etcd for an orphan.
        assert (await connect_to(etcd).status()).revision == 1


def fake(tmp_path: Path, script: str) -> Path:
    program = tmp_path / "etcd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("version", "allow_unsafe", "why"),
    [
        ("3.3.27", True, "3.4.0 or newer"),
        ("2.3.8", True, "3.4.0 or newer"),
        ("3.5.0", False, "lose acknowledged writes"),
        ("3.5.2", False, "allow_unsafe_version"),
        ("3.5.1", True, "ended at once"),
        ("3.5.3", False, "ended at once"),
        ("3.6.1-rc.0", False, "ended at once"),
    ],
)
async def test_versions_are_judged_before_they_touch_data(
    etcd_config: EmbeddedConfig, tmp_path: Path, version: str, allow_unsafe: bool, why: str
) -> None:
    script = f"""[ "$1" = --version ] && echo "etcd Version: {version}" && exit 0
echo 'panic: these are the last words' >&2; exit 3"""
    config = replace(etcd_config, binary=fake(tmp_path, script), allow_unsafe=allow_unsafe)
    said = await refusal(config)
    assert why in said
    if why == "ended at once":
        assert "exit status 3" in said
        assert "these are the last words" in said
        assert str(config.log_file) in said
    else:
        assert not config.data_dir.exists()


@pytest.mark.parametrize("script", ["exit 0", "echo hello", "echo 'etcd Version: x'"])
async def test_a_program_that_is_no_etcd_is_named(
    etcd_config: EmbeddedConfig, tmp_path: Path, script: str
) -> None:
    program = fake(tmp_path, script)
    why = await refusal(replace(etcd_config, binary=program))
    assert f"{program} --version` doesn't answer" in why


async def test_no_etcd_on_path_says_what_to_do(
    etcd_config: EmbeddedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "ensure_etcd" in await refusal(replace(etcd_config, binary=None))
    assert "nothing-here" in await refusal(replace(etcd_config, binary=tmp_path / "nothing-here"))


async def test_an_etcd_that_never_answers_is_given_up(
    etcd_config: EmbeddedConfig, tmp_path: Path
) -> None:
    script = '[ "$1" = --version ] && echo "etcd Version: 3.4.30" && exit 0\nexec sleep 600'
    program = fake(tmp_path, script)
    why = await refusal(replace(etcd_config, binary=program, start_timeout_s=0.5, grace_s=5))
    assert "does not answer within 0.5 s" in why


async def test_an_etcd_that_ignores_sigterm_is_killed(etcd_config: EmbeddedConfig) -> None:
    etcd = EmbeddedEtcd(replace(etcd_config, grace_s=0.2))
    await etcd.start()
    pid = etcd.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await etcd.stop()
    assert not is_alive(pid)


@pytest.mark.kills_etcd
async def test_it_is_started_again_when_it_dies(
    etcd_config: EmbeddedConfig, connect_to: ConnectTo
) -> None:
    async with EmbeddedEtcd(etcd_config) as etcd, asyncio.TaskGroup() as group:
        kv = connect_to(etcd)
        await kv.commit(PUT)
        supervisor = group.create_task(etcd.run())
        for restarts in (1, 2):
            assert etcd.pid is not None
            os.kill(etcd.pid, signal.SIGKILL)
            await until(lambda restarts=restarts: etcd.restarts == restarts)  # type: ignore[misc]
            assert (await connect_to(etcd).range(b"a")).count == 1
        await etcd.stop()
        await supervisor


async def test_stopping_while_it_is_being_restarted_leaves_nothing(
    etcd_config: EmbeddedConfig,
) -> None:
    etcd = EmbeddedEtcd(etcd_config)
    await etcd.start()
    first = etcd.pid
    assert first is not None
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(etcd.run())
        os.kill(first, signal.SIGKILL)
        await until(lambda: etcd.pid not in {None, first})
        second = etcd.pid
        await etcd.stop()
    assert second is not None
    assert not is_alive(second)
    assert etcd.pid is None


async def test_nothing_is_started_behind_a_stop(
    etcd_config: EmbeddedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, stopped = threading.Event(), threading.Event()
    open_log = place.open_log

    def open_log_late(config: EmbeddedConfig) -> int:
        starting.set()
        stopped.wait(30)
        return open_log(config)

    async with EmbeddedEtcd(etcd_config) as etcd:
        first = etcd.pid
        assert first is not None
        monkeypatch.setattr(place, "open_log", open_log_late)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(etcd.run())
            os.kill(first, signal.SIGKILL)
            await until(starting.is_set)
            await etcd.stop()
            stopped.set()
        assert etcd.pid is None
        assert etcd_config.pid_file.read_text().split()[0] == str(first)


SUPERVISOR = """
import asyncio, json, sys
from pathlib import Path
from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd

async def main():
    values = json.loads(sys.argv[1])
    for name in ("data_dir", "binary"):
        values[name] = Path(values[name])
    async with EmbeddedEtcd(EmbeddedConfig(**values)) as etcd:
        print(f"\\npid={etcd.pid}", flush=True)
        await etcd.run()

asyncio.run(main())
"""


async def supervise(config: EmbeddedConfig) -> tuple[asyncio.subprocess.Process, int]:
    """Run an etcd under a Python process of its own; returns that and etcd's process id."""
    meshd = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SUPERVISOR,
        json.dumps(asdict(config), default=str),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert meshd.stdout is not None
    async for line in meshd.stdout:
        if line.startswith(b"pid="):
            return meshd, int(line.removeprefix(b"pid="))
    raise AssertionError("the supervisor ended without starting etcd")


async def test_a_killed_meshd_leaves_no_etcd(etcd_config: EmbeddedConfig) -> None:
    meshd, pid = await supervise(etcd_config)
    meshd.kill()
    await meshd.communicate()
    await until(lambda: not is_alive(pid))
    async with EmbeddedEtcd(etcd_config):
        pass


async def test_an_orphan_is_ended_before_the_next_start(
    etcd_config: EmbeddedConfig, connect_to: ConnectTo
) -> None:
    meshd, pid = await supervise(etcd_config)
    # It hangs while meshd dies, so the signal that would have ended it stays undelivered.
    os.kill(pid, signal.SIGSTOP)
    try:
        meshd.kill()
        await meshd.communicate()
        assert is_alive(pid)
        assert find_orphan(etcd_config) == pid
        async with EmbeddedEtcd(replace(etcd_config, grace_s=0.5)) as etcd:
            assert not is_alive(pid)
            assert etcd.pid != pid
            assert (await connect_to(etcd).commit(PUT)).revision == 2
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_only_our_own_etcd_is_taken_for_an_orphan(etcd_config: EmbeddedConfig) -> None:
    etcd_config.data_dir.mkdir()
    assert find_orphan(etcd_config) is None
    for text in ("", "x y", "1", f"{os.getpid()} 1", "999999999 1"):
        etcd_config.pid_file.write_text(text)
        assert find_orphan(etcd_config) is None
    # The right process and start time, but it isn't an etcd on our data.
    etcd_config.pid_file.write_text(f"{os.getpid()} {start_time_of_self()}")
    assert find_orphan(etcd_config) is None
    async with EmbeddedEtcd(etcd_config) as etcd:
        assert find_orphan(etcd_config) == etcd.pid
        pid, start_time = etcd_config.pid_file.read_text().split()
        etcd_config.pid_file.write_text(f"{pid} {int(start_time) + 1}")
        assert find_orphan(etcd_config) is None


async def test_a_large_log_is_put_aside(
    etcd_config: EmbeddedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "LOG_BYTES_MAX", 100)
    for _ in range(3):
        async with EmbeddedEtcd(etcd_config):
            pass
    assert {path.name for path in etcd_config.data_dir.glob("*.log*")} == {
        "etcd.log",
        "etcd.log.1",
    }


def test_history_may_be_kept_for_ever(etcd_config: EmbeddedConfig) -> None:
    assert "--auto-compaction-retention=1h" in arguments(etcd_config)
    for_ever = arguments(replace(etcd_config, history_kept=""))
    assert not [flag for flag in for_ever if "compaction" in flag]
