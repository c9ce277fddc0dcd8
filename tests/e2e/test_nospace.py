"""An etcd that is full for so long that nobody leads any more, and what then comes back."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from meshd.edges.embedded import EmbeddedEtcd
from tests.conftest import StartEtcd
from tests.e2e.conftest import Daemon, RunDaemon
from tests.e2e.test_daemon import SERVICE, dump, put
from tests.e2e.test_faults import ENDPOINT, QUOTA_BYTES, etcdctl, fill, make_room
from tests.independent_reader import read_log

HEARTBEAT = "/meshd/v1/export/mesh/heartbeat"
LEADER = "/meshd/v1/leader/holder"


def end_all_leases(etcd: EmbeddedEtcd) -> None:
    """What etcd does by itself with the lease of a leader that was cut off or asleep."""
    listed = etcdctl(etcd, "lease", "list").stdout.decode()
    leases = re.findall(r"^[0-9a-f]{12,}$", listed, re.MULTILINE)
    assert leases, listed
    for lease in leases:
        assert etcdctl(etcd, "lease", "revoke", lease).returncode == 0


async def tell(east: Daemon, address: str) -> int:
    return await put(east, ENDPOINT, {"address": address})


async def test_a_leader_that_lost_its_lease_while_space_was_used_up_leads_again(
    start_etcd: StartEtcd, run_daemon: RunDaemon
) -> None:
    etcd = await start_etcd(quota_bytes=QUOTA_BYTES)
    async with run_daemon("east", 1, etcd.config.client_address) as east:
        await put(east, "/v1/services/shop/web", SERVICE)
        assert await tell(east, "10.0.0.1") in {200, 201}
        await east.until("/v1/status", leads)
        await asyncio.to_thread(fill, etcd)
        await asyncio.to_thread(end_all_leases, etcd)
        # No lease is to be had now, so nobody leads, beats or does chores.
        await east.until("/v1/status", lambda status: not leads(status))
        assert LEADER not in await asyncio.to_thread(dump, etcd)
        assert await tell(east, "10.0.0.2") in {503, 507}
        table = await east.get("/v1/tables/shop/web")
        assert [backend["address"] for backend in table["backends"]] == ["10.0.0.1"]
        before = await asyncio.to_thread(dump, etcd)
        await asyncio.to_thread(make_room, etcd)
        await east.until("/v1/status", leads)
        assert await tell(east, "10.0.0.3") in {200, 201}
        after = await asyncio.to_thread(dump, etcd)
        while after[HEARTBEAT] == before[HEARTBEAT]:
            after = await asyncio.to_thread(dump, etcd)
        assert after[LEADER]
        _, events = read_log(after, "/meshd/v1/local/")
        addresses = [event[2]["address"] for event in events if event[0] == "endpoint.set"]
        assert addresses == ["10.0.0.1", "10.0.0.3"]


def leads(status: Any) -> bool:
    return bool(status["leader"] and status["leader"]["self"])
