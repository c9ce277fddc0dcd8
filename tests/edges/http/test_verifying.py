"""Whether the mesh agrees, as one meshd tells it: with peers that live, stand still, lie or err."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from meshd.core.excerpt import excerpt
from meshd.model.codec import encode_record
from meshd.model.event import Event
from meshd.model.ids import ClusterName, Position, format_vector
from meshd.model.peer import Phase
from meshd.model.replica import Pause
from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh, Running, endpoint, service

NAMES = ("east", "west", "south")
QUICK = ("replication.heartbeat_every_s=0.1",)


async def until_said(served: Served, what: Callable[[Any], bool]) -> Any:
    """Ask until the report is as wanted; the test's own timeout is the limit."""
    while True:
        report = await served.get("/v1/verify")
        if what(report):
            return report
        await asyncio.sleep(0.05)


def one_of(report: Any, name: str) -> Any:
    (found,) = (one for one in report["clusters"] if one["name"] == name)
    return found


def is_said(name: str, verdict: str) -> Callable[[Any], bool]:
    return lambda report: bool(one_of(report, name)["verdict"] == verdict)


async def pause(running: Running, peer: str) -> None:
    running.parts.node.peers.control(ClusterName(peer), Pause(), "test")
    await running.until(lambda: running.phase(peer) is Phase.PAUSED)


def agree(report: Any) -> bool:
    return bool(report["agrees"])


async def three(stack: AsyncExitStack, mesh: Mesh) -> tuple[Served, Running, Running]:
    """Three clusters at work."""
    east = await stack.enter_async_context(serve_cluster("east", mesh=mesh))
    west = await stack.enter_async_context(mesh.running("west"))
    south = await stack.enter_async_context(mesh.running("south"))
    for number, running in enumerate((east.meshd, west, south), 1):
        await running.submit(service(), endpoint("shop/web/a", f"10.{number}.0.1"))
    for running in (east.meshd, west, south):
        await running.until_count("shop/web", 3)
    return east, west, south


async def test_clusters_that_have_read_the_same_agree() -> None:
    async with AsyncExitStack() as stack:
        east, west, _ = await three(stack, Mesh(NAMES, overrides=QUICK))
        report = await until_said(east, agree)
        assert (report["cluster"], report["digest"]) == ("east", east.node.projector.tables.digest)
        assert [(one["name"], one["self"]) for one in report["clusters"]] == [
            ("east", True),
            ("south", False),
            ("west", False),
        ]
        seen = one_of(report, "west")
        digest = west.parts.node.projector.tables.digest
        assert seen["digest"] == seen["digest_here"] == digest
        assert seen["vector_text"] == seen["here_text"] == report["vector_text"]
        assert seen["behind"] == []
        assert seen["compared"]["agrees"] is True
        # What was derived once for a vector isn't derived again.
        assert one_of(await east.get("/v1/verify"), "west")["digest_here"] == digest


async def test_who_lacks_what_and_since_when() -> None:
    mesh = Mesh(NAMES, overrides=QUICK)
    async with AsyncExitStack() as stack:
        east, west, south = await three(stack, mesh)
        await until_said(east, agree)
        await pause(west, "east")
        await pause(west, "south")
        await south.submit(endpoint("shop/web/b", "10.3.0.2"))
        await east.meshd.submit(endpoint("shop/web/b", "10.1.0.2"))
        await east.meshd.submit(endpoint("shop/web/c", "10.1.0.3"))
        report = await until_said(
            east,
            lambda report: (
                is_said("west", "behind")(report)
                and [lag["events"] for lag in one_of(report, "west")["behind"]] == [2, 1]
            ),
        )
        lags = {lag["cluster"]: lag for lag in one_of(report, "west")["behind"]}
        # Of the own log the time is in the own etcd, of south's in the ring.
        assert lags["east"]["seconds"] is not None
        assert lags["south"]["seconds"] is not None
        assert not report["agrees"]
        # They were at the same vector before, and agreed there.
        compared = one_of(report, "west")["compared"]
        assert compared["agrees"] is True
        assert compared["vector_text"] != report["vector_text"]


async def test_times_are_in_the_replica_where_the_ring_does_not_reach_back() -> None:
    mesh = Mesh(NAMES, overrides=QUICK)
    async with AsyncExitStack() as stack:
        west = await stack.enter_async_context(mesh.running("west"))
        south = await stack.enter_async_context(mesh.running("south"))
        async with serve_cluster("east", mesh=mesh) as east:
            await south.submit(service(), endpoint("shop/web/a"))
            await until_said(east, lambda report: agree(report) and _reads_all(report, "west"))
            await pause(west, "south")
            await south.submit(endpoint("shop/web/b", "10.3.0.2"))
            await east.meshd.until(lambda: _replica_seq(east, "south") == 4)
        async with serve_cluster("east", mesh=mesh) as east:
            report = await until_said(east, is_said("west", "behind"))
            (lag,) = one_of(report, "west")["behind"]
            assert (lag["cluster"], lag["events"]) == ("south", 1)
            assert lag["seconds"] is not None


def _reads_all(report: Any, name: str) -> bool:
    """Whether a cluster reads every log; what it doesn't read it need not agree on."""
    return bool(one_of(report, name)["vector_text"] == report["vector_text"])


def _replica_seq(served: Served, name: str) -> int:
    condition = served.node.peers.condition(ClusterName(name))
    assert condition is not None
    return condition.replica_seq


async def test_a_cluster_that_passed_over_something_differs() -> None:
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        for running in (east.meshd, west):
            await running.submit(service(), endpoint("shop/web/a"))
        await until_said(east, agree)
        await west.submit(endpoint("shop/web/bad", "127.0.0.1"))
        await east.meshd.until(lambda: east.meshd.phase("west") is Phase.QUARANTINED)
        # It can't be read on, so what it last said may not hold any more.
        report = await east.get("/v1/verify")
        assert one_of(report, "west")["verdict"] == "unknown"
        assert "it is Quarantined here: west seq 4" in one_of(report, "west")["reason"]
        assert not report["agrees"]
        assert (await east.ask("POST", "/v1/peers/west/skip", {})).status == 200
        report = await until_said(east, is_said("west", "differs"))
        seen = one_of(report, "west")
        assert seen["vector_text"] == seen["here_text"]
        assert seen["digest"] != seen["digest_here"]
        assert "this cluster passed over west seq 4" in seen["reason"]
        assert seen["compared"]["agrees"] is False


async def test_what_was_derived_of_states_that_were_replaced_counts_no_more() -> None:
    """A log that is read anew may come to something else at the same place."""
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        for running in (east.meshd, west):
            await running.submit(service(), endpoint("shop/web/a"))
        await until_said(east, agree)
        projector, name = east.node.projector, ClusterName("west")
        state, head = projector.state(name), projector.head(name)
        assert state is not None
        assert head is not None
        without = excerpt(state)
        without.endpoints.clear()
        projector.adopt(name, head, without)
        assert one_of(await east.get("/v1/verify"), "west")["verdict"] == "differs"


async def test_it_waits_while_what_another_meshd_wrote_is_folded(east: Served) -> None:
    projector = east.node.projector
    head, local_head = projector.head(east.meshd.name), projector.local_head
    assert head is not None
    assert local_head is not None
    told = Event("service.set", "shop/b", {"global": True}, "ann")
    record = encode_record(head, projector.folding(east.meshd.name).time_ms, (told,))
    projector.fold(east.meshd.name, record)
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(east.get("/v1/verify"))
        assert (await east.get("/v1/status"))["digest"] is None
        assert not asking.done()
        projector.settle(replace(local_head, local=record.head))
    assert asking.result()["digest"] == projector.tables.digest


async def test_who_is_not_heard_is_unknown() -> None:
    mesh = Mesh(NAMES, overrides=(*QUICK, "replication.silent_after_s=1"))
    mesh.etcds["south"].set_up(up=False)
    async with serve_cluster("east", mesh=mesh) as east:
        async with mesh.running("west") as west:
            for running in (east.meshd, west):
                await running.submit(service(), endpoint("shop/web/a"))
            report = await until_said(east, is_said("west", "agrees"))
            south = one_of(report, "south")
            assert (south["verdict"], south["vector"], south["age_s"]) == ("unknown", None, None)
            assert south["reason"]
            assert not report["agrees"]
        report = await until_said(east, is_said("west", "unknown"))
        seen = one_of(report, "west")
        assert "has not advanced for" in seen["reason"]
        assert seen["vector_text"] == report["vector_text"]
        # What was forgotten of a peer is gone.
        assert (await east.ask("PUT", "/v1/peers/north", {"endpoints": ["north:1"]})).status == 200
        report = await until_said(east, lambda report: len(report["clusters"]) == 4)
        assert (await east.ask("DELETE", "/v1/peers/north")).status == 200
        await until_said(east, lambda report: len(report["clusters"]) == 3)


async def test_a_cluster_alone_agrees(east: Served) -> None:
    report = await east.get("/v1/verify")
    assert report["agrees"]
    (own,) = report["clusters"]
    assert own["vector_text"] == format_vector(east.node.projector.vector())
    assert Position.parse(own["vector_text"]).cluster == "east"
