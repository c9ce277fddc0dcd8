"""An etcd that is full for long: nobody leads any more, and a meshd may be started meanwhile."""

from __future__ import annotations

import re

from chaos.etcds import Etcd
from chaos.raw import read_log
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_daemon import SERVICE, put
from tests.e2e.test_faults import LOCAL, QUOTA_BYTES, fill, make_room, refusal
from tests.e2e.test_faults_etcd import WEB
from tests.e2e.test_ha import leads

HEARTBEAT = "/meshd/v1/export/mesh/heartbeat"
LEADER = "/meshd/v1/leader/holder"


async def end_all_leases(etcd: Etcd) -> None:
    """What etcd does by itself with the lease of a leader that was cut off or asleep."""
    listed = (await etcd.ctl("lease", "list")).decode()
    leases = re.findall(r"^[0-9a-f]{12,}$", listed, re.MULTILINE)
    assert leases, listed
    for lease in leases:
        await etcd.ctl("lease", "revoke", lease)


async def tell(east: Daemon, address: str) -> int:
    return await put(east, f"{WEB}/endpoints/a", {"address": address})


async def addresses(east: Daemon) -> list[str]:
    return [one["address"] for one in (await east.get("/v1/tables/shop/web"))["backends"]]


async def until_all_is_well(etcd: Etcd, east: Daemon) -> None:
    """It leads, takes writes and beats, by the raw keys."""
    before = (await etcd.dump()).get(HEARTBEAT)
    await east.until("/v1/status", leads)
    assert await tell(east, "10.0.0.3") in {200, 201}
    while (await etcd.dump()).get(HEARTBEAT) == before:
        continue
    keys = await etcd.dump()
    assert keys[LEADER]
    events = [event for _, event in read_log(keys, LOCAL).events]
    said = [event[2]["address"] for event in events if event[0] == "endpoint.set"]
    assert said == ["10.0.0.1", "10.0.0.3"]


async def test_a_leader_that_lost_its_lease_while_space_was_used_up_leads_again(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    etcd = await new_etcd(1, "--quota-backend-bytes", str(QUOTA_BYTES))
    async with run_daemon("east", 1, etcd.endpoints) as east:
        await put(east, WEB, SERVICE)
        assert await tell(east, "10.0.0.1") in {200, 201}
        await east.until("/v1/status", leads)
        await fill(etcd)
        await end_all_leases(etcd)
        # No lease is to be had now, so nobody leads, beats or does chores.
        await east.until("/v1/status", lambda status: not leads(status))
        assert LEADER not in await etcd.dump()
        await refusal(east, 1)
        assert await addresses(east) == ["10.0.0.1"]
        await make_room(etcd)
        await until_all_is_well(etcd, east)


async def test_a_meshd_that_starts_while_space_is_used_up_serves_what_there_is(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    etcd = await new_etcd(1, "--quota-backend-bytes", str(QUOTA_BYTES))
    async with run_daemon("east", 1, etcd.endpoints) as east:
        await put(east, WEB, SERVICE)
        assert await tell(east, "10.0.0.1") in {200, 201}
        await fill(etcd)
        east.kill()
        await east.process.wait()
    # Its settings say something new of the cluster, which can't be told yet.
    async with run_daemon("east", 1, etcd.endpoints, {}, "cluster.zone=elsewhere") as east:
        assert await addresses(east) == ["10.0.0.1"]
        problem = await refusal(east, 1)
        assert "space" in problem["detail"]
        await make_room(etcd)
        await until_all_is_well(etcd, east)
        await east.until("/v1/clusters/east", lambda it: it["zone"] == "elsewhere")
        log = read_log(await etcd.dump(), LOCAL)
        assert log.state["cluster"]["east"]["zone"] == "elsewhere"
