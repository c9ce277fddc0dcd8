"""What a kill, a stranger's reader and a second daemon find: on real processes and a real etcd."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from meshd.edges.embedded import EmbeddedEtcd
from tests.e2e.conftest import Daemon, RunDaemon
from tests.independent_reader import keys_of, read_log

SERVICE = {"ports": [{"name": "http", "port": 80}], "global": True}
APPENDS = 200
BOUTIQUE = Path("../shared/data/boutique/kubernetes-manifests.yaml")


def dump(etcd: EmbeddedEtcd) -> dict[str, tuple[bytes, int]]:
    """The whole keyspace, as etcdctl prints it."""
    answer = subprocess.run(
        [
            *("etcdctl", "--endpoints", etcd.config.client_address),
            *("get", "--prefix", "/meshd/v1/", "-w", "json"),
        ],
        env=os.environ | {"ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    return keys_of(answer.stdout)


async def put(daemon: Daemon, path: str, body: Mapping[str, object], key: str = "") -> int:
    """PUT; returns the status, 0 if there was no answer."""
    headers = {"Idempotency-Key": key} if key else {}
    try:
        async with daemon.http.put(
            f"http://{daemon.api}{path}", json=body, headers=headers
        ) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return 0


async def test_a_strangers_reader_rebuilds_the_same_state(
    run_daemon: RunDaemon, etcd: EmbeddedEtcd
) -> None:
    async with run_daemon("east", 1, etcd.config.client_address) as east:
        for name, shared in (("web", True), ("secret", False)):
            await put(east, f"/v1/services/shop/{name}", SERVICE | {"shared": shared})
            for number in range(3):
                path = f"/v1/services/shop/{name}/endpoints/{name}-{number}"
                await put(east, path, {"address": f"10.0.0.{number + 1}"})
        await east.http.delete(f"http://{east.api}/v1/services/shop/web/endpoints/web-2")
        services = await east.get("/v1/services")
        endpoints = await east.get("/v1/endpoints")
        keys = dump(etcd)
        local, _ = read_log(keys, "/meshd/v1/local/")
        export, _ = read_log(keys, "/meshd/v1/export/mesh/")

    assert sorted(local["service"]) == ["shop/secret", "shop/web"]
    assert sorted(local["service"]) == sorted(
        f"{item['namespace']}/{item['name']}" for item in services["items"]
    )
    assert {key: value["address"] for key, value in local["endpoint"].items()} == {
        f"{item['namespace']}/{item['service']}/{item['name']}": item["address"]
        for item in endpoints["items"]
    }
    assert list(export["service"]) == ["shop/web"]
    assert sorted(export["endpoint"]) == ["shop/web/web-0", "shop/web/web-1"]
    assert local["cluster"]["east"]["id"] == export["cluster"]["east"]["id"] == 1
    known = ("cluster", "local/head", "local/log/", "export/mesh/", "leader/")
    assert all(key.removeprefix("/meshd/v1/").startswith(known) for key in keys)


async def append_until_killed(east: Daemon, kill_after: int) -> dict[str, int]:
    """Append from many callers, kill in the middle; returns the status of each attempt."""
    statuses: dict[str, int] = {}
    limit = asyncio.Semaphore(16)
    acknowledged = 0

    async def append(number: int) -> None:
        nonlocal acknowledged
        async with limit:
            name = f"e{number:03d}"
            path = f"/v1/services/shop/web/endpoints/{name}"
            statuses[name] = 0
            statuses[name] = await put(east, path, {"address": f"10.0.{number}.1"}, f"key-{name}")
            if statuses[name] in {200, 201}:
                acknowledged += 1
                if acknowledged == kill_after:
                    east.kill()

    async with asyncio.TaskGroup() as tasks:
        for number in range(APPENDS):
            tasks.create_task(append(number))
    return statuses


@pytest.mark.parametrize("kill_after", [20, 100])
async def test_kill_9_in_the_middle_of_appends_loses_and_doubles_nothing(
    run_daemon: RunDaemon, etcd: EmbeddedEtcd, kill_after: int
) -> None:
    async with run_daemon("east", 1, etcd.config.client_address) as east:
        await put(east, "/v1/services/shop/web", SERVICE)
        statuses = await append_until_killed(east, kill_after)
        await east.process.wait()
    assert 0 in statuses.values(), "the kill came too late to bite"

    async with run_daemon("east", 1, etcd.config.client_address) as east:
        _, events = read_log(dump(etcd), "/meshd/v1/local/")
        counts: dict[str, int] = {}
        for kind, key, *_ in events:
            if kind == "endpoint.set":
                name = key.rpartition("/")[2]
                counts[name] = counts.get(name, 0) + 1
        for name, status in statuses.items():
            allowed = {1} if status in {200, 201} else {0, 1}
            assert counts.get(name, 0) in allowed, f"{name}: status {status}, {counts.get(name)}"
        # And who wasn't answered asks again with the same key: now each is there exactly once.
        for name in statuses:
            path = f"/v1/services/shop/web/endpoints/{name}"
            body = {"address": f"10.0.{int(name[1:])}.1"}
            assert await put(east, path, body, f"key-{name}") in {200, 201}
        _, events = read_log(dump(etcd), "/meshd/v1/local/")
        sets = [key for kind, key, *_ in events if kind == "endpoint.set"]
        assert len(sets) == len(set(sets)) == APPENDS


async def test_another_cluster_on_the_same_etcd_is_refused(
    run_daemon: RunDaemon, etcd: EmbeddedEtcd
) -> None:
    address = etcd.config.client_address
    async with run_daemon("east", 1, address):
        status, said = await run_briefly("cluster.name=west", "cluster.id=2", address)
        assert status == 1
        assert "belongs to cluster 'east'" in said


async def test_systemd_is_told_when_it_serves_and_when_it_stops(
    run_daemon: RunDaemon,
    etcd: EmbeddedEtcd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        async with run_daemon("east", 1, etcd.config.client_address):
            assert await asyncio.to_thread(systemd.recv, 100) == b"READY=1"
        assert await asyncio.to_thread(systemd.recv, 100) == b"STOPPING=1"


async def test_an_etcd_that_is_none_is_named(free_address: Callable[[], str]) -> None:
    async def speak_ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-no\r\n")
        await reader.read()
        writer.close()

    host, _, port = free_address().rpartition(":")
    async with await asyncio.start_server(speak_ssh, host, int(port)):
        status, said = await run_briefly("cluster.name=east", "cluster.id=1", f"{host}:{port}")
    assert status == 1
    assert f"{host}:{port}" in said


async def run_briefly(name: str, number: str, etcd: str) -> tuple[int | None, str]:
    """Run a meshd that is expected to give up; returns its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshd", "run", "--set", name, "--set", number),
        *("--set", f"etcd.endpoints={etcd}", "--set", "api.listen=127.0.0.1:0"),
        *("--set", "etcd.start_timeout_s=1.5"),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


@pytest.mark.skipif(not BOUTIQUE.exists(), reason=f"{BOUTIQUE} is not beside this checkout")
async def test_boutique_is_taken_and_taken_again_without_an_event(
    run_daemon: RunDaemon, etcd: EmbeddedEtcd
) -> None:
    async with run_daemon("east", 1, etcd.config.client_address) as east:
        first, second = [await apply(east, BOUTIQUE) for _ in range(2)]
        kinds = sorted(item["kind"] for item in first["applied"])
        assert kinds == ["Deployment"] * 12 + ["Service"] * 12
        assert {item["kind"] for item in first["ignored"]} == {"ServiceAccount"}
        assert first["events"] == 24
        assert second["events"] == 0
        assert {item["change"] for item in second["applied"]} == {"unchanged"}


async def apply(east: Daemon, manifests: Path) -> Any:
    """Apply with the command line, as a person would."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshd", "--url", f"http://{east.api}"),
        *("apply", "-f", str(manifests), "-o", "json"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return orjson.loads(out)
