"""The commands in docs/ print what the pages say, on the demo's shop.

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

from meshd.demo.catalog import offers_of
from meshd.demo.manifests import manifest
from meshd.demo.places import Place
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_faults_etcd import QUICK

FOLDER = Path(__file__).parents[2] / "docs"
PAGES = ("questions.md", "policies.md")
NAMES = ("east", "west", "south")
BASE = 50
FIRST = datetime(2026, 11, 28, 12, tzinfo=UTC)

BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
FILE = re.compile(r"```yaml\n# (\S+)\n(.*?)```", re.DOTALL)
ASSIGNED = re.compile(r"([A-Z]+)=\$\((.*)\)\Z")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
LOG_ID = re.compile(r"(?<=:)[0-9a-f]{32}(?=:\d)")
CREATED = re.compile(r"(created_ms: - → )\d+")
AGE = re.compile(r"\b\d+\.\d s\b")


@dataclass(slots=True)
class Shell:
    """Runs the page's commands, and makes what differs from run to run the same."""

    folder: Path
    variables: dict[str, str]

    async def run(self, command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command),
            cwd=self.folder,
            env=self.variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, f"{command}: {output.decode()}{errors.decode()}"
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
    text = CREATED.sub(r"\g<1>1795867200000", text)
    return AGE.sub("0.5 s", text)


@pytest.fixture
async def shop(
    new_etcd: NewEtcd, run_daemon: RunDaemon, tmp_path: Path
) -> AsyncIterator[dict[str, Daemon]]:
    """Run three clusters, who may announce what the demo's may."""
    etcds = {name: await new_etcd() for name in NAMES}
    daemons = {}
    async with AsyncExitStack() as stack:
        for number, name in enumerate(NAMES, 1):
            peers = [
                {"name": peer, "endpoints": etcd.endpoints.split(","), "announces": ["127.0.0.0/8"]}
                for peer, etcd in etcds.items()
                if peer != name
            ]
            config = tmp_path / f"{name}-settings.yaml"
            config.write_text(yaml.safe_dump({"peers": peers}))
            running = run_daemon(name, number, etcds[name].endpoints, None, *QUICK, config=config)
            daemons[name] = await stack.enter_async_context(running)
        yield daemons


def test_every_page_is_held() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


@pytest.mark.parametrize("name_of_page", PAGES)
async def test_the_page_says_what_is_printed(
    shop: dict[str, Daemon], tmp_path: Path, pytestconfig: pytest.Config, name_of_page: str
) -> None:
    page = FOLDER / name_of_page
    folder = tmp_path / "work"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin/meshd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m meshd "$@"\n')
    program.chmod(0o755)
    variables = {key: text for key, text in os.environ.items() if not key.startswith("MESHD_")}
    variables |= {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(FOLDER.parent),
        "LOGNAME": "ann",
        "COLUMNS": "200",
    }
    for number, (name, daemon) in enumerate(shop.items(), 1):
        (folder / f"{name}.yaml").write_text(manifest(Place(name, number, BASE), offers_of(name)))
        setting = Shell(folder, variables | {"MESHD_URL": daemon.url})
        await setting.run(f"meshd apply -f {name}.yaml")
    places = {"MESHD_URL": shop["east"].url, "WEST": shop["west"].url}
    shell = Shell(folder, variables | places)
    await shell.run("meshd verify --wait --timeout 60")
    text = page.read_text()
    printed = await shell.page(text)
    if pytestconfig.getoption("--write-docs"):
        page.write_text(printed)
    assert printed.splitlines() == text.splitlines()
