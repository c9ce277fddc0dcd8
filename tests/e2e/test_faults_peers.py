"""What a peer, or the way to it, may do to a cluster: nothing but what the raw logs say."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import orjson
import pytest

from chaos.etcds import Etcd
from chaos.faults.poison import RECORDS
from chaos.faults.records import Head, head_behind, head_bytes, record_after, record_key
from chaos.faults.versions import append_unknown
from chaos.raw import read_log
from chaos.wire import Mode
from tests.e2e.conftest import Daemon, NewEtcd, NewWire, RunDaemon
from tests.e2e.test_daemon import put
from tests.e2e.test_faults_etcd import QUICK, WEB, Client, check_tables, define, settled

EXPORT = "/meshd/v1/export/mesh/"


async def addresses(daemon: Daemon, cluster: str) -> set[str]:
    table = await daemon.get("/v1/tables/shop/web")
    return {one["address"] for one in table["backends"] if one["cluster"] == cluster}


async def test_fault_11_swapped_addresses_are_refused_and_change_nothing(
    new_etcd: NewEtcd, new_wire: NewWire, run_daemon: RunDaemon
) -> None:
    own, etcd_b, etcd_c = await new_etcd(), await new_etcd(), await new_etcd()
    to_b, to_c = await new_wire(etcd_b.endpoints), await new_wire(etcd_c.endpoints)
    async with (
        run_daemon("b", 2, etcd_b.endpoints, {}, *QUICK) as b,
        run_daemon("c", 3, etcd_c.endpoints, {}, *QUICK) as c,
        run_daemon("a", 1, own.endpoints, {"b": to_b.listen, "c": to_c.listen}, *QUICK) as a,
    ):
        await define(a, b, c)
        await put(b, f"{WEB}/endpoints/x", {"address": "10.2.0.1"})
        await put(c, f"{WEB}/endpoints/x", {"address": "10.3.0.1"})
        await settled(a, "b", etcd_b)
        await settled(a, "c", etcd_c)
        to_b.lead_to(etcd_c.endpoints)
        to_c.lead_to(etcd_b.endpoints)
        for peer in ("b", "c"):
            await a.until(f"/v1/peers/{peer}", lambda it: it["phase"] == "Refused")
        assert await addresses(a, "b") == {"10.2.0.1"}
        assert await addresses(a, "c") == {"10.3.0.1"}
        to_b.lead_to(etcd_b.endpoints)
        to_c.lead_to(etcd_c.endpoints)
        await settled(a, "b", etcd_b)
        await settled(a, "c", etcd_c)
        await check_tables(own, a, "a", {"b": etcd_b, "c": etcd_c})


async def test_fault_13_a_half_open_link_is_noticed_and_nothing_is_read_twice(
    new_etcd: NewEtcd, new_wire: NewWire, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(), await new_etcd()
    wire = await new_wire(theirs.endpoints)
    async with (
        run_daemon("west", 2, theirs.endpoints, {}, *QUICK) as west,
        run_daemon("east", 1, own.endpoints, {"west": wire.listen}, *QUICK) as east,
    ):
        await define(east, west)
        client = Client(west)
        await client.write(5)
        await settled(east, "west", theirs)
        wire.set_mode(Mode.HOLE)
        await east.until("/v1/peers/west", lambda it: it["phase"] == "Stale")
        await client.write(5)
        assert len(await addresses(east, "west")) == 5
        wire.set_mode(Mode.PASS)
        await settled(east, "west", theirs)
        assert (await east.get("/v1/peers/west"))["records_duplicate"] == 0
        await check_tables(own, east, "east", {"west": theirs})


async def test_fault_16_a_link_that_flaps_churns_no_table(
    new_etcd: NewEtcd, new_wire: NewWire, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(), await new_etcd()
    wire = await new_wire(theirs.endpoints)
    async with (
        run_daemon("west", 2, theirs.endpoints, {}, *QUICK) as west,
        run_daemon("east", 1, own.endpoints, {"west": wire.listen}, *QUICK) as east,
    ):
        await define(east, west)
        client = Client(west)
        await client.write(3)
        await settled(east, "west", theirs)
        before = wire.connections
        for _ in range(20):
            wire.set_mode(Mode.CUT)
            await asyncio.sleep(0.05)
            wire.set_mode(Mode.PASS)
            await asyncio.sleep(0.05)
            assert len(await addresses(east, "west")) == 3
        assert wire.connections - before <= 60
        await client.write(3)
        await settled(east, "west", theirs)
        peer = await east.get("/v1/peers/west")
        assert (peer["forks"], peer["records_duplicate"]) == (0, 0)
        await check_tables(own, east, "east", {"west": theirs})


async def test_fault_19_poison_stops_that_log_there_and_nothing_else(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    """All kinds of it, each in a log of its own; one good peer goes on through it all."""
    own, good = await new_etcd(), await new_etcd()
    many = await new_etcd()
    names = [f"bad{number}" for number in range(len(RECORDS))]
    async with run_daemon("good", 2, good.endpoints, {}, *QUICK) as fine:
        await define(fine)
        for number, name in enumerate(names):
            # One etcd holds them all, each below a prefix of its own.
            await lay_log(many, name, 10 + number, list(RECORDS.values())[number])
        peers = ",".join(
            f"{{name: {name}, endpoints: ['{many.endpoints}'], prefix: /{name}}}" for name in names
        )
        listed = f"peers=[{{name: good, endpoints: ['{good.endpoints}']}},{peers}]"
        async with run_daemon("east", 1, own.endpoints, {}, *QUICK, listed) as east:
            await define(east)
            for name in names:
                await east.until(
                    f"/v1/peers/{name}", lambda it: it["phase"] in {"Quarantined", "Refused"}
                )
                peer = await east.get(f"/v1/peers/{name}")
                assert peer["seq"] in {2, None}, peer
                assert peer["reason"]
                assert len(peer["reason"]) < 500
            await Client(fine).write(5)
            await settled(east, "good", good)
            assert len(await addresses(east, "good")) == 5
            # Long enough for several tries, which say nothing new.
            await asyncio.sleep(3)
            warnings = [
                line for line in east.log_file.read_text().splitlines() if "peer stopped" in line
            ]
            assert len(warnings) == len(names), warnings


async def poison(etcd: Etcd, raw: bytes) -> None:
    """Put bytes where the next record would be, as an owner of that etcd could."""
    head = orjson.loads((await etcd.dump(EXPORT))[f"{EXPORT}head"][0])
    await etcd.put(record_key(EXPORT, head["seq"] + 1), raw)
    await etcd.put(f"{EXPORT}head", head_bytes(head_behind(head, raw)))


async def lay_log(etcd: Etcd, name: str, number: int, kind: Callable[[Head], bytes]) -> None:
    """A log of two good records and a bad one, without a meshd."""
    root = f"/{name}/export/mesh/"
    head: Head = {"log_id": f"{number:032x}", "seq": 0, "hash": "00" * 16}
    events = (
        ["cluster.set", name, {"name": name, "id": number}, "meshd", ""],
        ["service.set", "shop/web", {"global": True}, "ann", ""],
    )
    for event in events:
        raw = record_after(head, event)
        head = head_behind(head, raw)
        await etcd.put(record_key(root, head["seq"]), raw)
    raw = kind(head)
    head = head_behind(head, raw)
    await etcd.put(record_key(root, head["seq"]), raw)
    await etcd.put(f"{root}head", head_bytes(head))
    await etcd.put(
        f"{root}heartbeat", orjson.dumps({"beat": 1, "time_ms": 1, "vector": "", "digest": ""})
    )
    descriptor = {"name": name, "id": number, "protocol": [1, 1], "created_ms": 1}
    await etcd.put(f"/{name}/cluster", orjson.dumps(descriptor))


async def test_fault_20_keys_beside_the_log_and_prefix_twins_are_nobodys(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    """c1 fills its prefix with rubbish; c10, whose name begins alike, isn't touched by it."""
    own, etcd_1, etcd_10 = await new_etcd(), await new_etcd(), await new_etcd()
    async with (
        run_daemon("c1", 2, etcd_1.endpoints, {}, *QUICK) as c1,
        run_daemon("c10", 3, etcd_10.endpoints, {}, *QUICK) as c10,
        run_daemon(
            "east", 1, own.endpoints, {"c1": etcd_1.endpoints, "c10": etcd_10.endpoints}, *QUICK
        ) as east,
    ):
        await define(east, c1, c10)
        await Client(c10).write(3)
        await settled(east, "c1", etcd_1)
        await settled(east, "c10", etcd_10)
        for key in ("zzz", "log/../x", "log/1", "log/abc", "heartbeat2", "snapshot/x"):
            await etcd_1.put(f"{EXPORT}{key}", b"rubbish")
        await east.until("/v1/peers/c1", lambda it: it["phase"] == "Quarantined")
        await c10.http.delete(f"{c10.url}{WEB}/endpoints/e0")
        await settled(east, "c10", etcd_10)
        assert len(await addresses(east, "c10")) == 2
        read_log(await own.dump(), "/meshd/v1/local/")


async def test_fault_27_a_newer_meshd_beside_and_behind_it(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    """A record of types and fields that nobody here knows is carried, by east and by west."""
    own, theirs = await new_etcd(), await new_etcd()
    short = ("retention.check_every_s=0.2", "retention.snapshot_every_events=10")
    async with (
        run_daemon("east", 1, own.endpoints, {}, *QUICK, *short) as east,
        run_daemon("west", 2, theirs.endpoints, {"east": own.endpoints}, *QUICK) as west,
    ):
        await define(east, west)
        await append_unknown(own)
        # East, the older of the two, goes on behind it.
        await Client(east).write(20)
        await settled(west, "east", own)
        await east.until("/v1/logs", lambda it: (it["items"][1]["snapshot_seq"] or 0) > 10)
        await check_tables(theirs, west, "west", {"east": own})
        for root in ("/meshd/v1/local/", EXPORT):
            log = read_log(await own.dump(), root)
            assert log.state["moon"] == {"phase": {"full": True}}


async def test_fault_32_a_peer_that_is_no_longer_listed_is_gone_and_its_namesake_stays(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, etcd_b, etcd_b2 = await new_etcd(), await new_etcd(), await new_etcd()
    peers = {"b": etcd_b.endpoints, "b2": etcd_b2.endpoints}
    async with run_daemon("b2", 3, etcd_b2.endpoints, {}, *QUICK) as b2:
        async with (
            run_daemon("b", 2, etcd_b.endpoints, {}, *QUICK) as b,
            run_daemon("a", 1, own.endpoints, peers, *QUICK) as a,
        ):
            await define(a, b, b2)
            await put(b, f"{WEB}/endpoints/x", {"address": "10.2.0.1"})
            await put(b2, f"{WEB}/endpoints/x", {"address": "10.3.0.1"})
            await settled(a, "b", etcd_b)
            await settled(a, "b2", etcd_b2)
        del peers["b"]
        async with run_daemon("a", 1, own.endpoints, peers, *QUICK) as a:
            assert await addresses(a, "b") == set()
            assert await addresses(a, "b2") == {"10.3.0.1"}
            await check_tables(own, a, "a", {"b2": etcd_b2})


async def test_fault_34_an_event_loop_that_stood_still_says_so_and_keeps_its_lease(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    etcd = await new_etcd()
    async with run_daemon("east", 1, etcd.endpoints, {}, *QUICK) as east:
        await define(east)
        await east.until("/v1/status", lambda it: bool((it["leader"] or {}).get("self")))
        before = (await etcd.dump("/meshd/v1/leader/"))["/meshd/v1/leader/holder"]
        east.kill(signal.SIGSTOP)
        await asyncio.sleep(2)
        east.kill(signal.SIGCONT)
        client = Client(east)
        await client.write(3)
        client.check(read_log(await etcd.dump(), "/meshd/v1/local/"))
        assert (await etcd.dump("/meshd/v1/leader/"))["/meshd/v1/leader/holder"] == before
        async with east.http.get(f"{east.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        (most,) = [
            line for line in lines if line.startswith('meshd_loop_lag_seconds_bucket{le="0.5"')
        ]
        (all_of_them,) = [line for line in lines if line.startswith("meshd_loop_lag_seconds_count")]
        assert float(most.split()[-1]) < float(all_of_them.split()[-1])


@pytest.mark.timeout(400)  # all those events are written first
@pytest.mark.parametrize("length", ["short", "long"])
async def test_a_reconnect_reads_no_record_twice_however_long_the_log(
    new_etcd: NewEtcd,
    new_wire: NewWire,
    run_daemon: RunDaemon,
    pytestconfig: pytest.Config,
    length: str,
) -> None:
    events = 100 if length == "short" else int(pytestconfig.getoption("--log-events"))
    own, theirs = await new_etcd(), await new_etcd()
    wire = await new_wire(theirs.endpoints)
    keep = ("retention.snapshot_every_events=1000000",)
    async with (
        run_daemon("west", 2, theirs.endpoints, {}, *QUICK, *keep) as west,
        run_daemon("east", 1, own.endpoints, {"west": wire.listen}, *QUICK) as east,
    ):
        await define(east, west)
        await fill(west, events)
        await settled(east, "west", theirs)
        before = await east.get("/v1/peers/west")
        assert before["seq"] > events
        wire.set_mode(Mode.CUT)
        await east.until("/v1/peers/west", lambda it: it["link"] == "down")
        await Client(west).write(7)
        wire.set_mode(Mode.PASS)
        await settled(east, "west", theirs)
        after = await east.get("/v1/peers/west")
        assert after["records_read"] - before["records_read"] == 7
        assert after["records_duplicate"] == 0
        assert after["reconnects"] > before["reconnects"]


async def fill(west: Daemon, events: int) -> None:
    """So many endpoints, in documents that each hold those of one service."""
    portion = 1000
    for first in range(0, events, portion):
        items = [
            {
                "name": f"f{number}",
                "address": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            }
            for number in range(first + 1, first + 1 + min(portion, events - first))
        ]
        names = {"namespace": "shop", "name": f"fill{first}"}
        kinds = {"Service": {"global": True}, "Endpoints": {"endpoints": items}}
        documents = [
            {"apiVersion": "meshd.io/v1", "kind": kind, "metadata": names, "spec": spec}
            for kind, spec in kinds.items()
        ]
        document = {"apiVersion": "v1", "kind": "List", "items": documents}
        async with west.http.post(f"{west.url}/v1/apply", json=document) as response:
            assert response.status == 200, await response.text()
