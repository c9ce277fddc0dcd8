"""A log that was put back to a backup, under its id: who was told what is lost hears of it."""

from __future__ import annotations

import pytest

from meshd.model.place import EventPlace
from tests.edges.http.served import Served, serve_cluster
from tests.edges.http.test_stream import place_now
from tests.mesh import Mesh, endpoint


@pytest.mark.parametrize("told", ["lost", "kept"])
@pytest.mark.parametrize("read_by", ["ring", "etcd", "head"])
async def test_a_log_that_was_put_back_and_reaches_as_far_again_is_another_one(
    told: str, read_by: str
) -> None:
    """Its seqs are the same, and who was told the lost events would never hear of it."""
    mesh = Mesh(("east",))
    async with serve_cluster(mesh=mesh) as east:
        await east.define()
        kept = str(place_now(east))
        backup = mesh.etcds["east"].backup()
        await east.meshd.submit(endpoint("shop/web/lost"), endpoint("shop/web/lost-2"))
        lost = str(place_now(east))
    mesh.etcds["east"].restore(backup)
    place = lost if told == "lost" else kept
    async with serve_cluster(mesh=mesh) as east:
        await east.meshd.submit(endpoint("shop/web/b"), endpoint("shop/web/c"))
        if read_by != "head":
            await east.meshd.submit(endpoint("shop/web/d"))
        if read_by == "etcd":
            east.node.projector.ring.reset(east.meshd.name)
        if told == "kept":
            async with east.stream(Last_Event_ID=place) as stream:
                assert (await stream.subjects(2)) == ["shop/web/b", "shop/web/c"]
            return
        answer = await east.ask(
            "GET", "/v1/events", Accept="text/event-stream", Last_Event_ID=place
        )
        assert (answer.status, answer.slug) == (410, "gone")
        seq = EventPlace.parse(place).vector[east.meshd.name].seq
        assert f"seq {seq} of east was lost in a restore; another event is" in answer.json["detail"]
        # Its vector alone doesn't say so.
        async with east.stream(Last_Event_ID=place.partition("~")[0]) as stream:
            assert stream.last_id == place.partition("~")[0]


async def test_a_mark_that_is_none_is_told(east: Served) -> None:
    place = f"{place_now(east)}0"
    answer = await east.ask("GET", "/v1/events", Accept="text/event-stream", Last_Event_ID=place)
    assert answer.status == 400
    assert "is not a place in a stream of events" in answer.json["detail"]
