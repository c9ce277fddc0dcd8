"""`meshd verify` and `meshd plan`, the commands, against three real meshds on real etcds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from chaos.etcds import Etcd
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_faults_etcd import QUICK

NAMES = ("east", "west", "south")
SHOP = """
apiVersion: meshd.io/v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{global: true, affinity: local, ports: [{{name: http, port: 80}}]}}
---
apiVersion: meshd.io/v1
kind: Endpoint
metadata: {{name: web-1, namespace: shop}}
spec: {{service: web, address: 10.{number}.0.1}}
"""
CHANGES = """
apiVersion: meshd.io/v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {global: true, affinity: remote, ports: [{name: http, port: 80}]}
---
apiVersion: meshd.io/v1
kind: Endpoint
metadata: {name: web-2, namespace: shop}
spec: {service: web, address: 10.1.0.2}
"""
BAD = """
apiVersion: meshd.io/v1
kind: Endpoint
metadata: {name: bad, namespace: shop}
spec: {service: web, address: 127.0.0.1}
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and how it ended."""

    status: int
    output: str
    errors: str


@dataclass(slots=True)
class ThreeClusters:
    """Daemons and etcds by name."""

    folder: Path
    daemons: dict[str, Daemon] = field(default_factory=dict)
    etcds: dict[str, Etcd] = field(default_factory=dict)

    async def meshd(self, name: str, *arguments: str) -> Said:
        """Run the command against one of them."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "meshd", "--url", self.daemons[name].url, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={key: value for key, value in os.environ.items() if not key.startswith("MESHD_")},
        )
        output, errors = await process.communicate()
        assert process.returncode is not None
        return Said(process.returncode, output.decode(), errors.decode())

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    async def apply(self, name: str, text: str) -> None:
        said = await self.meshd(name, "apply", "-f", self.file(f"{name}.yaml", text))
        assert said.status == 0, said.errors

    async def until_agreed(self) -> Said:
        """Wait until all that is written now is read everywhere, as east tells it."""
        while True:
            said = await self.meshd("east", "verify", "--wait", "--timeout", "60")
            assert said.status == 0, said.output + said.errors
            # Who agreed while it waited may be behind by what was read since.
            if [row(said, name)[1] for name in NAMES] == ["asked", "agrees", "agrees"]:
                return said

    async def tables(self) -> dict[str, Any]:
        """What each cluster itself serves, but for where it comes from."""
        found = {}
        for name, daemon in self.daemons.items():
            table = await daemon.get("/v1/tables")
            for service in table["services"]:
                for backend in service["backends"]:
                    del backend["origin"]
            found[name] = {
                f"{it['namespace']}/{it['name']}": {
                    (one["cluster"], one["name"]): one for one in it["backends"]
                }
                for it in table["services"]
            }
        return found


@pytest.fixture
async def three(
    new_etcd: NewEtcd, run_daemon: RunDaemon, tmp_path: Path
) -> AsyncIterator[ThreeClusters]:
    """Give three clusters with a service in all of them, once they agree."""
    found = ThreeClusters(tmp_path)
    for name in NAMES:
        found.etcds[name] = await new_etcd()
    async with AsyncExitStack() as stack:
        for number, name in enumerate(NAMES, 1):
            peers = {peer: etcd.endpoints for peer, etcd in found.etcds.items() if peer != name}
            running = run_daemon(name, number, found.etcds[name].endpoints, peers, *QUICK)
            found.daemons[name] = await stack.enter_async_context(running)
        for number, name in enumerate(NAMES, 1):
            await found.apply(name, SHOP.format(number=number))
        for daemon in found.daemons.values():
            await daemon.until("/v1/tables/shop/web", lambda it: len(it.get("backends", ())) == 3)
        yield found
        for daemon in found.daemons.values():
            daemon.kill(signal.SIGCONT)


def row(said: Said, name: str) -> list[str]:
    """The row of a cluster in a table."""
    return next(line.split() for line in said.output.splitlines() if line.split()[:1] == [name])


async def test_clusters_agree_then_one_stands_still(three: ThreeClusters) -> None:
    said = await three.until_agreed()
    assert said.output.splitlines()[-1] == "3 clusters agree"
    also = [part for name in NAMES[1:] for part in ("--also", three.daemons[name].url)]
    said = await three.meshd("east", "verify", *also, "--wait", "-o", "json")
    answer = orjson.loads(said.output)
    assert (said.status, answer["agrees"]) == (0, True)
    assert {match["perspective"] for match in answer["compared"]} == set(NAMES)
    assert all(len(match["said"]) == len(NAMES) for match in answer["compared"])

    three.daemons["west"].kill(signal.SIGSTOP)
    await three.apply("east", BAD.replace("127.0.0.1", "10.1.0.9"))
    await three.daemons["east"].until("/v1/peers/west", lambda it: it["phase"] == "Stale")
    said = await three.meshd("east", "verify")
    assert said.status == 1
    assert row(said, "west")[1] == "unknown"
    assert "east by 1 event (" in said.output
    assert "west: its heartbeat has not advanced for" in said.output
    limited = await three.meshd("east", "verify", "--max-lag-events", "1000")
    assert limited.status == 1, "who doesn't live isn't merely behind"

    three.daemons["west"].kill(signal.SIGCONT)
    said = await three.meshd("east", "verify", "--wait", "--timeout", "60")
    assert said.status == 0, said.output


async def test_who_passed_over_a_record_differs(three: ThreeClusters) -> None:
    await three.until_agreed()
    await three.apply("west", BAD)
    east = three.daemons["east"]
    peer = await east.until("/v1/peers/west", lambda it: it["phase"] == "Quarantined")
    said = await three.meshd("east", "verify")
    assert said.status == 1
    assert "west: it is Quarantined here" in said.output
    seq = str(peer["quarantined_seq"])
    skipped = await three.meshd("east", "peer", "skip", "west", "--seq", seq)
    assert skipped.status == 0, skipped.errors
    said = await three.meshd("east", "verify", "--wait", "--timeout", "60")
    assert said.status == 1
    assert row(said, "west")[1] == "differs"
    assert "DIFFERS: west: it came to another digest at the same vector" in said.output
    assert f"this cluster passed over west seq {seq}" in said.output


async def test_a_plan_comes_true(three: ThreeClusters) -> None:
    await three.until_agreed()
    before = await three.tables()
    statuses = [(await it.get("/v1/status"))["vector_text"] for it in three.daemons.values()]
    file = three.file("changes.yaml", CHANGES)
    removal = ("--remove", "endpoint/shop/web/web-1")
    said = await three.meshd("east", "plan", "-f", file, *removal, "-o", "json")
    assert said.status == 0, said.errors
    planned = orjson.loads(said.output)
    text = await three.meshd("east", "plan", "-f", file, *removal)
    assert "as east sees it:\n  ~ shop/web  (backends in: 3 → 3)" in text.output
    assert "      + east web-2  address 10.1.0.2" in text.output
    assert "      - east web-1" in text.output
    assert await three.tables() == before
    after = [(await it.get("/v1/status"))["vector_text"] for it in three.daemons.values()]
    assert after == statuses, "a plan wrote something"

    await three.apply("east", CHANGES)
    east = three.daemons["east"]
    url = f"{east.url}/v1/services/shop/web/endpoints/web-1"
    async with east.http.delete(url) as response:
        assert response.status == 200
    for daemon in three.daemons.values():
        await daemon.until("/v1/tables/shop/web", _has_only_web_2)
    now = await three.tables()
    for effect in planned["perspectives"]:
        _check(effect, before[effect["perspective"]], now[effect["perspective"]])


def _has_only_web_2(service: Any) -> bool:
    found = {one["name"] for one in service["backends"] if one["cluster"] == "east"}
    return found == {"web-2"}


def _check(effect: Any, before: Any, now: Any) -> None:
    """What each cluster itself serves now is what it served plus what was planned."""
    (service,) = effect["services"]
    expected = {name: dict(backend) for name, backend in before["shop/web"].items()}
    for one in service["backends"]:
        name = (one["cluster"], one["name"])
        values = {it["path"]: it["new"] for it in one["fields"]}
        match one["change"]:
            case "removed":
                del expected[name]
            case "added":
                reason = values["reason"]
                names = {"cluster": name[0], "name": name[1], "eligible": reason is None}
                expected[name] = values | names
            case _:
                expected[name] |= values
    assert now["shop/web"] == expected
