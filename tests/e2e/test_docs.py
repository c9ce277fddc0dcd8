"""The commands in the pages of docs/ print what the pages say, on the demo's shop.

`pytest tests/e2e/test_docs.py --write-docs` writes the pages anew with what they print.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path

import pytest
import yaml

from chaos.etcds import Etcd
from meshd.demo.catalog import offers_of
from meshd.demo.manifests import manifest
from meshd.demo.places import Place
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_faults_etcd import QUICK

ROOT = Path(__file__).parents[2]
PAGES = ("questions", "operations", "recipes", "hub-and-spoke", "policies")
ELSEWHERE = {"benchmarks", "decisions", "health", "streams"}
"""Held by `test_health_page` and `test_streams_page`: they need servers of their own. What
benchmarks print differs by machine; the tests in `tests/bench` hold what they measure. Decisions
print nothing.
"""
NAMES = ("east", "west", "south")
BASE = 50
FIRST = datetime(2026, 11, 28, 12, tzinfo=UTC)

HUB = "east"
"""Who is asked where a command doesn't say whom. On the page on hub and spoke it reads all others,
and they read only it, as its `spokes`.
"""

BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
FILE = re.compile(r"```(?:yaml|python|javascript)\n(?:#|//) (\S+)\n(.*?)```", re.DOTALL)
ASSIGNED = re.compile(r"([A-Z]+)=\$\((.*)\)\Z")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
MARK = re.compile(r"(?<=\d~)[0-9a-f]{8}\b")
LOG_ID = re.compile(r"(?<=:)[0-9a-f]{32}(?=:\d)")
MILLISECONDS = re.compile(r"(?<=_ms: )(?:(?:-|\d{13}) → )?\d{13}\b")
MOMENT = "1795867200000"
ADDRESS = re.compile(r"http://127(?:\.\d+){3}:\d+")
AGE = re.compile(r"\b\d+\.\d s\b")


@dataclass(slots=True)
class Shell:
    """Runs the page's commands, and makes what differs from run to run the same.

    region: what `region down NAME` and `region up NAME` do. ends: the statuses that a command may
    end with.
    """

    folder: Path
    variables: dict[str, str]
    region: Region | None = None
    ends: frozenset[int] = frozenset({0})

    async def run(self, command: str) -> str:
        if self.region is not None and command.startswith("region "):
            _, deed, name = command.split()
            self.variables |= await self.region.do(deed, name)
            return ""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command),
            cwd=self.folder,
            env=self.variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode in self.ends, f"{command}: {output.decode()}{errors.decode()}"
        return output.decode()

    async def page(self, text: str) -> str:
        """The page with what its commands print now."""
        for name, content in FILE.findall(text):
            (self.folder / name).write_text(content)
        told = []
        end = 0
        for block in BLOCK.finditer(text):
            told += [text[end : block.start(1)], await self._block(block[1])]
            end = block.end(1)
        return _same_every_time("".join(told)) + text[end:]

    async def _block(self, block: str) -> str:
        lines = []
        for line in block.splitlines():
            if not line.startswith("$ "):
                continue
            lines.append(line)
            command = line.removeprefix("$ ")
            assigned = ASSIGNED.match(command)
            if assigned is None:
                lines += (await self.run(command)).splitlines()
            else:
                self.variables[assigned[1]] = (await self.run(assigned[2])).strip()
        return "".join(f"{line.rstrip()}\n" for line in lines)


def _same_every_time(text: str) -> str:
    """Text without what differs from run to run: times keep their order, log ids stay apart."""
    times = {
        real: (FIRST + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        for number, real in enumerate(sorted(set(TIME.findall(text))))
    }
    log_ids = {
        real: blake2b(str(number).encode(), digest_size=16).hexdigest()
        for number, real in enumerate(dict.fromkeys(LOG_ID.findall(text)))
    }
    text = TIME.sub(lambda match: times[match[0]], text)
    text = LOG_ID.sub(lambda match: log_ids[match[0]], text)
    text = MARK.sub("5e9d31c0", text)
    text = MILLISECONDS.sub(lambda match: re.sub(r"\d{13}", MOMENT, match[0]), text)
    text = ADDRESS.sub("http://127.0.50.1:7979", text)
    return AGE.sub("0.5 s", text)


class Region:
    """Three clusters, who may announce what the demo's may, and whose machines can be switched."""

    def __init__(
        self, etcds: dict[str, Etcd], folder: Path, run: RunDaemon, *, is_hub_and_spoke: bool
    ) -> None:
        self.etcds = etcds
        self._is_hub_and_spoke = is_hub_and_spoke
        self.daemons: dict[str, Daemon] = {}
        self._folder = folder
        self._run = run
        self._lives: dict[str, AsyncExitStack] = {}

    async def do(self, deed: str, name: str) -> dict[str, str]:
        """Switch a cluster on or off; returns what the shell must know of it."""
        assert deed in {"up", "down"}, deed
        if deed == "down":
            self.daemons[name].kill()
            await self._lives[name].aclose()
            await self.etcds[name].stop()
            return {}
        await self.etcds[name].start()
        config = self._folder / f"{name}-settings.yaml"
        config.write_text(yaml.safe_dump(self._settings(name)))
        etcd, number = self.etcds[name].endpoints, NAMES.index(name) + 1
        life = self._lives[name] = AsyncExitStack()
        running = self._run(name, number, etcd, None, *QUICK, config=config)
        self.daemons[name] = await life.enter_async_context(running)
        url = self.daemons[name].url
        return {f"{name.upper()}_URL": url} | ({"MESHD_URL": url} if name == HUB else {})

    def _settings(self, name: str) -> dict[str, object]:
        hub = {HUB} if self._is_hub_and_spoke else set()
        peers = [
            {"name": peer, "endpoints": etcd.endpoints.split(","), "announces": ["127.0.0.0/8"]}
            | ({"audience": "spokes"} if peer in hub else {})
            for peer, etcd in self.etcds.items()
            if peer != name and (not hub or hub & {name, peer})
        ]
        cluster = {"audiences": ["spokes"]} if name in hub else {}
        return {"cluster": cluster, "peers": peers, "staleness": {"stale_after_s": 3.0}}

    async def close(self) -> None:
        for life in self._lives.values():
            await life.aclose()


@pytest.fixture
async def region(
    new_etcd: NewEtcd, run_daemon: RunDaemon, tmp_path: Path, name: str
) -> AsyncIterator[Region]:
    etcds = {cluster: await new_etcd() for cluster in NAMES}
    found = Region(etcds, tmp_path, run_daemon, is_hub_and_spoke=name == "hub-and-spoke")
    try:
        for cluster in NAMES:
            await found.do("up", cluster)
        yield found
    finally:
        await found.close()


def test_every_page_is_held() -> None:
    assert {path.stem for path in (ROOT / "docs").iterdir()} == {*PAGES, *ELSEWHERE}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PAGES)
async def test_the_page_says_what_is_printed(
    region: Region, tmp_path: Path, pytestconfig: pytest.Config, name: str
) -> None:
    folder = tmp_path / "work"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin/meshd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m meshd "$@"\n')
    program.chmod(0o755)
    variables = {key: text for key, text in os.environ.items() if not key.startswith("MESHD_")}
    variables |= {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LOGNAME": "ann",
        "COLUMNS": "200",
    }
    for number, (cluster, daemon) in enumerate(region.daemons.items(), 1):
        text = manifest(Place(cluster, number, BASE), offers_of(cluster))
        (folder / f"{cluster}.yaml").write_text(text)
        variables[f"{cluster.upper()}_URL"] = daemon.url
        setting = Shell(folder, variables | {"MESHD_URL": daemon.url})
        await setting.run(f"meshd apply -f {cluster}.yaml")
    shell = Shell(folder, variables | {"MESHD_URL": region.daemons["east"].url}, region)
    await shell.run("meshd verify --wait --timeout 60")
    page = ROOT / f"docs/{name}.md"
    text = page.read_text()
    printed = await shell.page(text)
    if pytestconfig.getoption("--write-docs"):
        page.write_text(printed)
    assert printed.splitlines() == text.splitlines()
