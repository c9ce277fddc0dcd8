"""A log on a real etcd, kept as files: with a daemon that runs, is killed, and is gone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import orjson

from meshd.edges.embedded import EmbeddedEtcd
from tests.e2e.conftest import Daemon, RunDaemon
from tests.e2e.test_daemon import SERVICE, dump, put
from tests.independent_reader import read_log

ENDPOINTS = 500


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshd", "log", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def meshd_log(*arguments: str) -> bytes:
    process = await start(*arguments)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out


async def append(east: Daemon, name: str) -> None:
    limit = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        async with limit:
            body = {"address": f"10.0.{number // 250}.{number % 250 + 1}"}
            path = f"/v1/services/shop/{name}/endpoints/e{number:03d}"
            assert await put(east, path, body) in {200, 201}

    await put(east, f"/v1/services/shop/{name}", SERVICE)
    async with asyncio.TaskGroup() as tasks:
        for number in range(ENDPOINTS):
            tasks.create_task(one(number))


async def listed(east: Daemon) -> list[Any]:
    items: list[Any] = []
    while True:
        page = await east.get(f"/v1/events?cluster=east&limit=500&after={len(items)}")
        items += page["items"]
        if page["next"] is None:
            return items


async def test_a_log_kept_as_files_is_the_log(
    run_daemon: RunDaemon, etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    address = etcd.config.client_address
    config = tmp_path / "east.yaml"
    config.write_text(f"cluster: {{name: east, id: 1}}\netcd: {{endpoints: ['{address}']}}\n")
    source = ("-c", str(config))
    local, mesh, killed = (str(tmp_path / name) for name in ("local.log", "mesh.log", "killed.log"))
    async with run_daemon("east", 1, address) as east:
        await append(east, "web")
        await put(east, "/v1/services/shop/secret", SERVICE | {"shared": False})
        await meshd_log("export", *source, "-o", local)
        await meshd_log("export", *source, "--log", "export/mesh", "-o", mesh)
        events = await listed(east)
        exporting = await start("export", *source, "-o", killed)
        east.kill()
        await exporting.communicate()
        assert exporting.returncode == 0
        await east.process.wait()

    assert len(events) > ENDPOINTS
    for file in (local, mesh, killed):
        (row,) = orjson.loads(await meshd_log("verify", file, "-o", "json"))
        assert row["verdict"] == "ok"
    lines = (await meshd_log("cat", local, "-o", "json")).splitlines()
    assert [orjson.loads(line) for line in lines] == events
    keys = dump(etcd)
    for file, log in ((local, "local"), (mesh, "export/mesh")):
        state, told = read_log(keys, f"/meshd/v1/{log}/")
        assert orjson.loads(await meshd_log("cat", file, "--state", "-o", "json")) == state
        found = await meshd_log("verify", *source, "--log", log, "-o", "json")
        (row,) = orjson.loads(found)
        assert row["last_seq"] == len(told)
