"""A set of manifests that one team owns, and what outlasts a restart: real processes, real etcd."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from meshd.edges.embedded import EmbeddedEtcd
from tests.e2e.conftest import Daemon, RunDaemon

FIRST = """
apiVersion: meshd.io/v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {global: true, weight: 50, ports: [{port: 80}]}
---
apiVersion: meshd.io/v1
kind: Node
metadata: {name: n1}
spec: {addresses: [10.0.1.1], pod_cidrs: [10.1.1.0/24]}
---
apiVersion: meshd.io/v1
kind: Identity
metadata: {name: web}
spec: {labels: {app: web}}
---
apiVersion: meshd.io/v1
kind: Cluster
metadata: {name: east}
spec: {state: draining, announces: [10.1.0.0/16]}
"""
SECOND = FIRST.partition("---")[0].replace("weight: 50", "weight: 70")


async def meshd(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    """Run the command line against a daemon; without a terminal."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshd", *arguments),
        env=os.environ | {"MESHD_URL": daemon.url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_what_a_team_applies_shows_prunes_and_finds_again(
    run_daemon: RunDaemon, etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(FIRST)
    apply = ("apply", "-f", str(file), "--owner", "shop", "--prune", "--diff")
    async with run_daemon("east", 1, etcd.config.client_address) as east:
        status, _, err = await meshd(east, *apply)
        assert (status, "add --yes" in err) == (2, True)
        assert (await east.get("/v1/services"))["items"] == []
        status, out, err = await meshd(east, *apply, "--yes")
        assert (status, err) == (0, "")
        assert "  + number: 65792\n" in out
        assert '  ~ state: "active" -> "draining"\n' in out
    # Another region in the settings; what was said while it ran stays as it was.
    settings = ("cluster.region=eu",)
    async with run_daemon("east", 1, etcd.config.client_address, None, *settings) as east:
        said = await east.until("/v1/cluster", lambda answer: answer.get("region") == "eu")
        assert (said["state"], said["announces"]) == ("draining", ["10.1.0.0/16"])
        file.write_text(SECOND)
        status, _, err = await meshd(east, *(*apply[:-2], "--owner", "others"))
        assert (status, "belongs to shop, not to others" in err) == (2, True)
        status, out, err = await meshd(east, *apply, "--yes")
        assert (status, err) == (0, "")
        assert "  ~ weight: 50 -> 70\n" in out
        assert "Node n1 removed\nIdentity 65792 removed\n" in out
        assert (await east.get("/v1/nodes"))["items"] == []
        (service,) = (await east.get("/v1/services"))["items"]
        assert (service["weight"], service["labels"]) == (70, {"meshd.io/owner": "shop"})
