"""The client: which backends it tries, and what becomes of a request."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from meshd.demo.caller import Caller, Kind, Target, open_session, order


def target(
    name: str,
    priority: int = 0,
    weight: int = 100,
    address: str = "127.0.0.1",
    port: int = 1,
    share: int | None = None,
) -> Target:
    """Everything goes to the first tier, unless another share is given."""
    share = int(priority == 0) if share is None else share
    return Target(name.partition("-")[0], name, address, port, priority, weight, share)


def test_the_tier_that_takes_a_request_is_drawn_by_its_share() -> None:
    targets = [target("e-1", share=3), target("e-2", share=3), target("w-1", 16, share=1)]
    dice = random.Random(1)
    first = Counter(next(order(targets, dice)).cluster for _ in range(4000))
    assert 900 < first["w"] < 1100
    tried = {tuple(one.cluster for one in order(targets, dice)) for _ in range(50)}
    assert tried == {("e", "e", "w"), ("w", "e", "e")}


def test_where_no_tier_has_a_share_the_first_is_tried_first() -> None:
    targets = [target("w-1", 1, share=0), target("e-1", share=0)]
    assert [one.endpoint for one in order(targets, random.Random(1))] == ["e-1", "w-1"]


def test_a_later_tier_comes_only_after_every_backend_of_the_earlier() -> None:
    targets = [target("w-1", 1), target("e-1"), target("s-1", 1000), target("e-2")]
    for seed in range(50):
        tried = [one.priority for one in order(targets, random.Random(seed))]
        assert tried == [0, 0, 1, 1000]


def test_weights_decide_who_is_first() -> None:
    targets = [target("light", weight=100), target("heavy", weight=300)]
    dice = random.Random(1)
    first = Counter(next(order(targets, dice)).endpoint for _ in range(2000))
    assert 1400 < first["heavy"] < 1600


def test_the_same_dice_give_the_same_order() -> None:
    targets = [target(f"e-{number}") for number in range(9)]
    orders = [[one.endpoint for one in order(targets, random.Random(seed))] for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]


Serve = Callable[..., Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server that says who it is, or answers with a status; returns its port."""
    async with AsyncExitStack() as stack:

        async def start(name: str, status: int = 200) -> int:
            async def answer(_: web.Request) -> web.Response:
                said = {"cluster": name.partition("-")[0], "endpoint": name}
                return web.json_response(said, status=status)

            app = web.Application()
            app.router.add_get("/", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port: int = runner.addresses[0][1]
            return port

        yield start


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with open_session() as session:
        yield Caller(session, random.Random(1))


async def test_the_answer_names_who_answered(caller: Caller, serve: Serve) -> None:
    port = await serve("east-1")
    answer = await caller.call({"web": (target("claimed", port=port),)}, "web")
    assert (answer.kind, answer.cluster, answer.endpoint) == (Kind.ANSWERED, "east", "east-1")
    assert answer.retries == 0


async def test_a_dead_backend_is_passed_over(caller: Caller, serve: Serve, free_port: int) -> None:
    port = await serve("west-1")
    table = {"web": (target("dead", port=free_port), target("west-1", 1, port=port))}
    answer = await caller.call(table, "web")
    assert (answer.kind, answer.endpoint, answer.retries) == (Kind.ANSWERED, "west-1", 1)


async def test_a_backend_that_answers_with_an_error_is_passed_over(
    caller: Caller, serve: Serve
) -> None:
    bad, good = await serve("east-1", 503), await serve("east-2")
    table = {"web": (target("bad", port=bad), target("good", 1, port=good))}
    assert (await caller.call(table, "web")).endpoint == "east-2"


async def test_when_nobody_answers_the_request_has_failed(caller: Caller, free_port: int) -> None:
    answer = await caller.call({"web": (target("dead", port=free_port),)}, "web")
    assert (answer.kind, answer.retries) == (Kind.FAILED, 1)
    assert "dead" in answer.problem


async def test_a_service_without_backends_is_no_failure(caller: Caller) -> None:
    assert (await caller.call({"web": ()}, "web")).kind is Kind.NO_BACKEND
    assert (await caller.call({}, "web")).kind is Kind.NO_BACKEND
