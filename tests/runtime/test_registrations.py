"""Registrations on virtual time: they last while they are renewed, and end whoever leads then."""

from __future__ import annotations

import asyncio

import pytest

from meshd.model.command import Outcome, RegisterEndpoint, RemoveService, SetEndpoint, Submission
from meshd.model.endpoint import Endpoint
from meshd.model.errors import (
    MovedError,
    NotFoundError,
    OverloadedError,
    RejectedError,
    TransientError,
)
from meshd.model.ids import EndpointKey, ServiceKey
from meshd.model.registration import Registering
from meshd.runtime.guards import GUARDS_MAX, GuardError, Guards
from meshd.runtime.ports import CreateRevisionIs, ModRevisionIs, ValueIs
from meshd.runtime.registrations import Registrations, Wish
from tests.mesh import Mesh, Running, endpoint, service

pytestmark = pytest.mark.looptime

A, B = EndpointKey.parse("shop/web/a"), EndpointKey.parse("shop/web/b")
TTL_S = 10


def of(running: Running) -> Registrations:
    return running.parts.node.registrations


async def register(
    running: Running, key: EndpointKey = A, address: str = "10.0.0.1", **said: object
) -> int:
    holder = str(said.pop("holder", "vm-1"))
    fields: dict[str, object] = {"ttl_s": TTL_S} | said
    what = Registering(endpoint=Endpoint(address=address), **fields)  # type: ignore[arg-type]
    return (await of(running).register(Wish(key, holder, "test"), what)).events


def names(running: Running) -> list[str]:
    state = running.parts.node.projector.state(running.name)
    assert state is not None
    return sorted(state.endpoints_of(A.service))


def seq(running: Running) -> int:
    head = running.parts.node.projector.head(running.name)
    assert head is not None
    return head.seq


async def renew(running: Running, *keys: EndpointKey, times: int = 1) -> tuple[EndpointKey, ...]:
    for _ in range(times):
        done = await of(running).renew(keys)
        await asyncio.sleep(TTL_S / 3)
        if done.gone:
            return done.gone
    return ()


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(("east",))


async def test_what_is_renewed_stays_without_an_event_and_what_is_not_goes(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        assert await register(east, A) == await register(east, B) == 1
        before = seq(east)
        assert await renew(east, A, times=30) == ()
        # B ended in that time, by one event; A was renewed, by none.
        assert names(east) == ["a"]
        assert seq(east) == before + 1
        assert await renew(east, A, B) == (B,)
        stopped_s = asyncio.get_running_loop().time()
        await east.until(lambda: not names(east))
        assert asyncio.get_running_loop().time() - stopped_s <= TTL_S + 2


async def test_registering_again_is_an_event_only_if_something_changes(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        assert [await register(east) for _ in range(2)] == [1, 0]
        assert await register(east, address="10.0.0.2") == 1
        assert await register(east, address="10.0.0.2", ttl_s=60) == 0
        await east.until(lambda: of(east).live[A].value.ttl_s == 60)
        await asyncio.sleep(5 * TTL_S)
        assert names(east) == ["a"]
        await east.until(lambda: not names(east))


async def test_deregistering_takes_the_endpoint_along(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        await register(east)
        with pytest.raises(MovedError, match="vm-1"):
            await of(east).deregister(Wish(A, "vm-2", "test"))
        assert (await of(east).deregister(Wish(A, "vm-1", "test"))).events == 1
        assert names(east) == []
        with pytest.raises(NotFoundError):
            await of(east).deregister(Wish(A, "vm-1", "test"))
        assert await renew(east, A) == (A,)


async def test_another_holder_waits_until_the_first_has_stopped(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        await register(east)
        with pytest.raises(MovedError, match="is registered by vm-1"):
            await register(east, holder="vm-2")
        done = await of(east).renew([A], "vm-2")
        assert done.gone == (A,)
        await east.until(lambda: not names(east))
        assert await register(east, holder="vm-2") == 1


async def test_what_a_manifest_set_is_not_registered_and_no_key_stays(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        await east.submit(SetEndpoint(A, Endpoint(address="10.0.0.9")))
        with pytest.raises(RejectedError, match="not by a registration"):
            await register(east)
        found = await east.kv.range(east.parts.node.keyspace.registration(A))
        assert found.kvs == ()
        await asyncio.sleep(3 * TTL_S)
        assert names(east) == ["a"]


async def test_a_service_that_is_removed_takes_it_along_and_renewing_says_so(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        await east.submit(service("shop/web"))
        await register(east)
        await east.submit(RemoveService(ServiceKey.parse("shop/web")))
        assert await renew(east, A) == (A,)
        assert await register(east) == 1


async def test_there_are_only_so_many() -> None:
    mesh = Mesh(("east",), overrides=("health.registrations_max=1",))
    async with mesh.running("east") as east:
        await register(east, A)
        await east.until(lambda: len(of(east).live) == 1)
        with pytest.raises(OverloadedError, match="registrations"):
            await register(east, B)
        # What is there already isn't more.
        assert await register(east, A, ttl_s=20) == 0


async def test_the_leaders_end_loses_none_and_the_next_one_ends_what_ran_out(mesh: Mesh) -> None:
    async with mesh.running("east", is_alone=False) as first:
        async with mesh.running("east", is_alone=False) as second:
            await register(first, A)
            await register(first, B)
            assert first.parts.node.leadership.is_leader
            await second.until(lambda: len(of(second).live) == 2)
            # Any meshd renews it, whoever it was registered with.
            assert await renew(second, A, B) == ()
        await renew(first, A, B)
    async with mesh.running("east", is_alone=False) as third:
        await renew(third, A, times=6)
        assert third.parts.node.leadership.is_leader
        assert names(third) == ["a"]


async def test_what_ran_out_while_no_meshd_lived_is_removed_by_the_next(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        await register(east, A)
        await register(east, B, ttl_s=3600)
    await asyncio.sleep(3 * TTL_S)
    async with mesh.running("east") as east:
        await east.until(lambda: names(east) == ["b"])
        await asyncio.sleep(3 * TTL_S)
        assert names(east) == ["b"]


async def test_an_endpoint_whose_key_is_gone_is_never_written(mesh: Mesh) -> None:
    """Its lease ended between the key and the endpoint."""
    async with mesh.running("east") as east:
        command = RegisterEndpoint(A, Endpoint(address="10.0.0.1"))
        guard = ModRevisionIs(east.parts.node.keyspace.registration(A), 7)
        before = seq(east)
        with pytest.raises(GuardError):
            await east.parts.node.writer.submit(Submission((command,), "test"), (guard,))
        assert (names(east), seq(east)) == ([], before)


async def test_a_lease_that_ends_between_the_key_and_the_endpoint_leaves_neither(
    mesh: Mesh,
) -> None:
    async with mesh.running("east") as east:
        writer, key = east.parts.node.writer, east.parts.node.keyspace.registration(A)
        submit = writer.submit

        async def late(submission: Submission, guards: Guards = ()) -> Outcome:
            for kv in (await east.kv.range(key)).kvs:
                await east.kv.revoke_lease(kv.lease)
            return await submit(submission, guards)

        writer.submit = late  # type: ignore[method-assign]
        with pytest.raises(GuardError):
            await register(east)
        assert names(east) == []


async def test_what_is_registered_again_meanwhile_is_not_removed(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        await register(east)
        # As if the news of the end came behind that of the new begin.
        of(east).dropped.add(A)
        of(east).woken.set()
        await east.until(lambda: not of(east).dropped)
        assert names(east) == ["a"]


async def test_a_failed_guard_fails_its_own_submission_only(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        writer, leader = east.parts.node.writer, east.parts.node.keyspace.leader
        wrong = (CreateRevisionIs(leader, 0), ValueIs(leader, b"x"), ModRevisionIs(leader, 1))

        async def submit(name: str, *guards: CreateRevisionIs | ValueIs | ModRevisionIs) -> object:
            command = SetEndpoint(EndpointKey(A.service, name), Endpoint(address="10.0.0.1"))
            try:
                return (await writer.submit(Submission((command,), "test"), guards)).events
            except GuardError:
                return "refused"

        fence = east.parts.node.leadership.fence()
        assert fence is not None
        async with asyncio.TaskGroup() as tasks:
            done = [
                tasks.create_task(submit("a")),
                *(tasks.create_task(submit("b", *fence, guard)) for guard in wrong),
                tasks.create_task(submit("c", *fence)),
            ]
        assert [task.result() for task in done] == [1, "refused", "refused", "refused", 1]
        assert names(east) == ["a", "c"]


async def test_more_guards_than_a_transaction_holds_are_spread_over_several(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        writer, keyspace = east.parts.node.writer, east.parts.node.keyspace
        keys = [EndpointKey(A.service, f"e{number}") for number in range(3 * GUARDS_MAX)]
        async with asyncio.TaskGroup() as tasks:
            for key in keys:
                command = SetEndpoint(key, Endpoint(address="10.0.0.1"))
                guards = (CreateRevisionIs(keyspace.registration(key), 0),)
                tasks.create_task(writer.submit(Submission((command,), "test"), guards))
        assert len(names(east)) == len(keys)
        with pytest.raises(ValueError, match="guards"):
            await writer.submit(Submission((), "test"), [ValueIs(b"x", b"y")] * (GUARDS_MAX + 1))


async def test_a_registered_endpoint_without_a_key_is_removed(mesh: Mesh) -> None:
    """A log that was restored from a backup has them."""
    async with mesh.running("east") as east:
        command = RegisterEndpoint(A, Endpoint(address="10.0.0.1"))
        await east.submit(endpoint("shop/web/b"))
        await east.parts.node.writer.submit(Submission((command,), "test"))
        assert names(east) == ["a", "b"]
        await east.until(lambda: names(east) == ["b"], 70)


async def test_a_lease_that_runs_out_while_it_is_asked_for_is_no_success(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        await register(east)
        live = of(east).live[A]
        await east.kv.revoke_lease(live.lease)
        found = await of(east).renew([A])
        assert found.gone == (A,)


async def test_an_etcd_that_is_away_delays_and_ends_nothing(mesh: Mesh) -> None:
    async with mesh.running("east") as east:
        await register(east)
        east.kv.is_linked = False
        with pytest.raises(TransientError):
            await of(east).renew([A])
        await asyncio.sleep(1)
        east.kv.is_linked = True
        assert await renew(east, A, times=9) == ()
        assert names(east) == ["a"]
