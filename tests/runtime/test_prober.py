"""Probing on virtual time: who asks, whom, how often, and what outlasts the one who asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from meshd.core.probing import HeldReason
from meshd.model.command import DescribeCluster, SetEndpoint
from meshd.model.endpoint import Endpoint
from meshd.model.ids import EndpointKey
from meshd.model.probe import Probe, ProbeResult, ProbeType
from meshd.model.service import Port
from meshd.model.table import Reason
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

A, B = EndpointKey.parse("shop/web/a"), EndpointKey.parse("shop/web/b")
PROBE = Probe(type=ProbeType.TCP, interval_s=5.0, timeout_s=1.0)
PORTS = (Port(80, "http"),)


@dataclass(slots=True)
class Answers:
    """What endpoints answer, by address, and who asked when. takes_s: how long an answer takes."""

    ill: set[str] = field(default_factory=set)
    takes_s: float = 0.1
    asked: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    at_once_most: int = 0

    async def look(self, address: str, port: int, probe: Probe) -> str:
        self.asked[f"{address}:{port}"] += 1
        self.at_once += 1
        self.at_once_most = max(self.at_once, self.at_once_most)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.at_once -= 1
        return "connection refused" if address in self.ill else ""


def mesh_of(answers: Answers, *overrides: str, names: tuple[str, ...] = ("east",)) -> Mesh:
    return Mesh(names, look=answers.look, overrides=overrides)


def results(running: Running) -> dict[str, str]:
    state = running.parts.node.projector.state(running.name)
    assert state is not None
    return {name: held.value.probed for name, held in state.endpoints_of(A.service).items()}


def reasons(running: Running) -> dict[str, Reason | None]:
    view = running.parts.node.projector.tables.view(A.service)
    return {backend.name: backend.reason for backend in view.backends} if view else {}


def seq(running: Running) -> int:
    head = running.parts.node.projector.head(running.name)
    assert head is not None
    return head.seq


async def define(running: Running, probe: Probe | None = PROBE) -> None:
    await running.submit(
        service(ports=PORTS, probe=probe),
        endpoint("shop/web/a", "10.0.0.1"),
        endpoint("shop/web/b", "10.0.0.2"),
    )


async def test_what_fails_goes_out_and_comes_back_and_steadiness_makes_no_event() -> None:
    answers = Answers()
    async with mesh_of(answers).running("east") as east:
        await define(east)
        assert reasons(east) == {"a": None, "b": None}
        await east.until(lambda: results(east) == {"a": "passing", "b": "passing"})
        before = seq(east)
        await asyncio.sleep(100)
        assert seq(east) == before
        # About twenty times each, and each at the service's port.
        assert set(answers.asked) == {"10.0.0.1:80", "10.0.0.2:80"}
        assert all(18 <= count <= 30 for count in answers.asked.values())
        answers.ill.add("10.0.0.2")
        await east.until(lambda: reasons(east) == {"a": None, "b": Reason.PROBE_FAILING})
        watched = east.parts.node.prober.watched[B]
        assert (watched.error, watched.health.bad) == ("connection refused", 3)
        answers.ill.clear()
        await east.until(lambda: reasons(east) == {"a": None, "b": None})
        assert seq(east) == before + 2


async def test_what_comes_and_goes_is_held_out_until_it_stays() -> None:
    answers = Answers()
    async with mesh_of(answers).running("east") as east:
        await define(east)
        seen = []
        for _ in range(3):
            answers.ill.add("10.0.0.2")
            await east.until(lambda: results(east)["b"] == "failing")
            answers.ill.clear()
            await east.until(lambda: results(east)["b"] != "failing")
            seen.append(results(east)["b"])
        assert seen == ["passing", "passing", "flapping"]
        assert reasons(east)["b"] is Reason.FLAPPING
        explained = east.parts.node.projector.explain_as(east.name, None, A.service)
        assert "came back too often" in explained.endpoints[1].why
        await east.until(lambda: reasons(east)["b"] is None, 120)


async def test_only_the_leader_asks_and_the_next_one_goes_on() -> None:
    answers = Answers(ill={"10.0.0.2"})
    mesh = mesh_of(answers)
    async with mesh.running("east", is_alone=False) as first:
        async with mesh.running("east", is_alone=False) as second:
            await define(first)
            await first.until(lambda: results(first) == {"a": "passing", "b": "failing"})
            assert len(first.parts.node.prober.watched) == 2
            assert second.parts.node.prober.watched == {}
            assert results(second) == results(first)
        answers.asked.clear()
    async with mesh.running("east", is_alone=False) as third:
        before = seq(third)
        await third.until(lambda: len(third.parts.node.prober.watched) == 2)
        # Known from the first moment, and confirmed without an event.
        assert reasons(third) == {"a": None, "b": Reason.PROBE_FAILING}
        await asyncio.sleep(60)
        assert (reasons(third)["b"], seq(third)) == (Reason.PROBE_FAILING, before)
        answers.ill.clear()
        await third.until(lambda: results(third) == {"a": "passing", "b": "passing"})


@pytest.mark.parametrize("probe", [None, Probe(type=ProbeType.HTTP, interval_s=5.0, timeout_s=1.0)])
async def test_another_probe_or_none_begins_anew(probe: Probe | None) -> None:
    answers = Answers(ill={"10.0.0.1", "10.0.0.2"})
    async with mesh_of(answers).running("east") as east:
        await define(east)
        await east.until(lambda: set(results(east).values()) == {"failing"})
        answers.ill.clear()
        answers.takes_s = 0.9
        await east.submit(service(ports=PORTS, probe=probe))
        await east.until(lambda: set(results(east).values()) == {"unknown"})
        assert reasons(east) == {"a": None, "b": None}
        answers.asked.clear()
        await asyncio.sleep(30)
        assert bool(answers.asked) == (probe is not None)


async def test_results_of_a_probe_that_went_while_nobody_led_are_cleared() -> None:
    answers = Answers(ill={"10.0.0.1"})
    mesh = mesh_of(answers)
    async with mesh.running("east") as east:
        await define(east)
        await east.until(lambda: results(east)["a"] == "failing")
        east.parts.node.leadership.lose()
        await east.submit(service(ports=PORTS))
    async with mesh.running("east") as east:
        await east.until(lambda: set(results(east).values()) == {"unknown"})


async def test_what_is_held_out_stays_so_with_the_next_leader() -> None:
    answers = Answers()
    mesh = mesh_of(answers)
    async with mesh.running("east") as east:
        await define(east)
        while results(east)["b"] != "flapping":
            answers.ill.add("10.0.0.2")
            await east.until(lambda: results(east)["b"] == "failing")
            answers.ill.clear()
            await east.until(lambda: results(east)["b"] != "failing")
    async with mesh.running("east") as east:
        await asyncio.sleep(30)
        assert reasons(east)["b"] is Reason.FLAPPING
        assert east.parts.node.prober.watched[B].asked >= 4
        await east.until(lambda: reasons(east)["b"] is None, 120)


async def test_so_many_are_asked_at_once_and_so_many_at_all() -> None:
    answers = Answers(takes_s=1.0)
    mesh = mesh_of(answers, "health.probes_at_once_max=5", "health.probed_max=40")
    async with mesh.running("east") as east:
        await define(east)
        numbers = range(50)
        await east.submit(*(endpoint(f"shop/web/e{n}", f"10.0.1.{n + 1}") for n in numbers))
        await asyncio.sleep(60)
        assert answers.at_once_most == 5
        assert len(answers.asked) == 40
        assert east.parts.node.prober.left_out == 12
        # Each gets its turn.
        assert min(answers.asked.values()) >= 4


async def test_what_is_not_the_clusters_own_is_held() -> None:
    answers = Answers()
    mesh = mesh_of(answers, names=("east", "west"))
    async with mesh.running("east") as east, mesh.running("west") as west:
        await west.submit(DescribeCluster(announces=("10.2.0.0/16",)))
        await east.until_ready("west")
        await east.submit(
            service(ports=PORTS, probe=PROBE),
            SetEndpoint(A, Endpoint(address="127.0.0.1")),
            SetEndpoint(B, Endpoint(address="10.2.0.1")),
            endpoint("shop/web/c", "10.1.0.1"),
        )
        await east.until(lambda: results(east).get("c") == "passing")
        watched = east.parts.node.prober.watched
        held = {key.name: watched[key].aim.held for key in sorted(watched)}
        assert held == {"a": HeldReason.NOT_REACHABLE, "b": HeldReason.OF_ANOTHER, "c": None}
        assert set(answers.asked) == {"10.1.0.1:80"}
        assert results(east)["b"] is ProbeResult.UNKNOWN
        # What is announced can be taken back, and then it is asked.
        await west.submit(DescribeCluster())
        await east.until(lambda: results(east)["b"] == "passing")


async def test_results_wait_for_an_etcd_that_takes_no_writes() -> None:
    answers = Answers()
    mesh = mesh_of(answers)
    async with mesh.running("east") as east:
        await define(east)
        await east.until(lambda: results(east) == {"a": "passing", "b": "passing"})
        answers.ill.add("10.0.0.2")
        # Full: leases live on, and so this meshd leads on.
        mesh.etcds["east"].is_out_of_space = True
        await asyncio.sleep(60)
        assert results(east)["b"] == "passing"
        assert east.parts.node.prober.watched[B].health.result == "failing"
        mesh.etcds["east"].is_out_of_space = False
        await east.until(lambda: results(east)["b"] == "failing")
