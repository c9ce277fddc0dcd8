"""The import contracts hold, and would tell if they did not: a deliberate breach is reported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROOMS = "Rooms point one way"
EDGES = "Edges do not know each other"
DECIDES = "What decides does not wait, look at the clock, roll dice or speak"
WAITS = "What waits does not speak"
JUDGES = "What judges meshd shares nothing with it"


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """Copy the packages and their contracts to where they may be broken."""
    for package in ("meshd", "chaos"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(where: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter there, as `make lint` does here. Wide, so that no line is broken."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=where,
        env=os.environ | {"PYTHONPATH": str(where), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )


def append(where: Path, module: str, code: str) -> int:
    """Add code at a module's end; returns the line of its last line."""
    file = where / module
    text = file.read_text()
    file.write_text(f"{text}\n{code}\n")
    return text.count("\n") + 1 + code.count("\n") + 1


def test_the_package_as_it_is_keeps_all_contracts(skeleton: Path) -> None:
    done = lint(skeleton)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
    for contract in (ROOMS, EDGES, DECIDES, WAITS, JUDGES):
        assert f"{contract} KEPT" in done.stdout


@dataclass(frozen=True, slots=True)
class Breach:
    """Code that must not be where it is put, and the contracts that it breaks."""

    module: str
    code: str
    imported: str
    contracts: tuple[str, ...]


@pytest.mark.parametrize(
    "breach",
    [
        Breach("core/position.py", "import asyncio", "asyncio", (DECIDES,)),
        Breach("core/backoff.py", "from random import random", "random", (DECIDES,)),
        Breach("model/ids.py", "import time", "time", (DECIDES,)),
        Breach(
            "model/codec.py",
            "def late() -> None:\n    import socket",
            "socket",
            (DECIDES,),
        ),
        Breach(
            "edges/memory/kv.py",
            "from meshd.edges.etcd.kv import EtcdKv",
            "meshd.edges.etcd.kv",
            (EDGES,),
        ),
        Breach(
            "runtime/ring.py",
            "from meshd.edges.memory.kv import MemoryKv",
            "meshd.edges.memory.kv",
            (ROOMS, WAITS),
        ),
        Breach("runtime/writer.py", "import grpc", "grpc", (WAITS,)),
        Breach("settings/load.py", "import subprocess", "subprocess", (WAITS,)),
        Breach(
            "core/fold.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import meshd.runtime.ring",
            "meshd.runtime.ring",
            (ROOMS,),
        ),
        Breach(
            "model/event.py",
            "from meshd.core.state import ClusterState",
            "meshd.core.state",
            (ROOMS,),
        ),
        Breach(
            "telemetry/log.py",
            "from meshd.settings import Settings",
            "meshd.settings",
            (ROOMS,),
        ),
    ],
    ids=lambda breach: f"{breach.module} imports {breach.imported}",
)
def test_a_breach_is_reported_with_its_line(skeleton: Path, breach: Breach) -> None:
    line = append(skeleton / "meshd", breach.module, breach.code)
    importer = "meshd." + breach.module.removesuffix(".py").replace("/", ".")
    done = lint(skeleton)
    assert done.returncode == 1
    for contract in breach.contracts:
        assert f"{contract} BROKEN" in done.stdout
    assert f"{importer} -> {breach.imported} (l.{line})" in done.stdout


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("reference", "meshd.core.derive"),
        ("raw", "meshd.model.codec"),
        ("validators/logs", "meshd.model.ids"),
    ],
)
def test_who_judges_may_not_ask_whom_it_judges(skeleton: Path, module: str, imported: str) -> None:
    line = append(skeleton / "chaos", f"{module}.py", f"import {imported}")
    done = lint(skeleton)
    assert done.returncode == 1
    assert f"{JUDGES} BROKEN" in done.stdout
    assert f"chaos.{module.replace('/', '.')} -> {imported} (l.{line})" in done.stdout


def test_a_room_that_is_in_no_contract_is_reported(skeleton: Path) -> None:
    room = skeleton / "meshd" / "annex"
    room.mkdir()
    (room / "__init__.py").write_text('"""A room that nobody planned."""\n')
    done = lint(skeleton)
    assert done.returncode == 1
    assert f"{ROOMS} BROKEN" in done.stdout
    assert "meshd.annex" in done.stdout
