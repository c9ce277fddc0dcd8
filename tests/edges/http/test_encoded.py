"""A service that is asked for again: the same bytes, made once; 304 for who has them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.edges.http.encoded import EncodedServices
from meshd.model.ids import ClusterName
from tests.edges.http.served import Served
from tests.mesh import endpoint, service

PATH = "/v1/tables/shop/web"


async def tagged(east: Served, tag: str = "") -> tuple[int, str, bytes]:
    """Status, tag and body, asked for with the tag of an earlier answer."""
    answer = await east.ask("GET", PATH, **({"If_None_Match": tag} if tag else {}))
    return answer.status, answer.headers["Etag"], answer.body


async def test_who_has_it_already_is_told_so_until_it_changes(east: Served) -> None:
    await east.meshd.submit(service(), endpoint("shop/web/a"))
    status, tag, body = await tagged(east)
    assert (status, tag[0], tag[-1]) == (200, '"', '"')
    assert await tagged(east, tag) == (304, tag, b"")
    assert await tagged(east, f'W/"other", {tag}') == (304, tag, b"")
    assert await tagged(east, "*") == (304, tag, b"")
    assert await tagged(east, '"other"') == (200, tag, body)
    await east.meshd.submit(endpoint("shop/web/b", "10.0.0.2"))
    changed = await tagged(east, tag)
    assert changed[0] == 200
    assert changed[1] != tag
    assert b"10.0.0.2" in changed[2]


async def test_it_is_the_service_of_the_whole_table(east: Served) -> None:
    await east.meshd.submit(service(), endpoint("shop/web/a"))
    for number in range(3):
        await east.meshd.submit(endpoint(f"shop/web/b{number}", f"10.0.1.{number}"))
        (shown,) = (await east.get("/v1/tables"))["services"]
        assert await east.get(PATH) == shown == await east.get(PATH)


async def test_what_was_is_not_kept(east: Served) -> None:
    await east.meshd.submit(service(), endpoint("shop/web/a"))
    status, tag, _ = await tagged(east)
    assert status == 200
    at = (await east.get("/v1/tables"))["events_after"]
    answer = await east.ask("GET", f"{PATH}?as_of={at}", If_None_Match=tag)
    assert answer.status == 200
    assert "Etag" not in answer.headers


async def test_one_is_made_anew_only_when_something_about_it_changed(east: Served) -> None:
    await east.meshd.submit(service(), endpoint("shop/web/a"))
    tables = east.node.projector.tables
    view = tables.view(tables.keys()[0])
    assert view is not None
    encoded = EncodedServices()
    nobody: frozenset[ClusterName] = frozenset()
    first = encoded.of(view, "d", nobody)
    assert encoded.of(view, "d", nobody) is first
    assert encoded.of(view, "d", frozenset({ClusterName("elsewhere")})) is first
    stale = encoded.of(view, "d", frozenset({ClusterName("east")}))
    assert stale.tag != first.tag
    assert encoded.of(replace(view, headless=True), "d", nobody).tag not in {stale.tag, first.tag}
    last = encoded.of(view, "d", nobody)
    assert encoded.size_bytes == len(last.body)


@pytest.mark.parametrize("services", [1, 2])
async def test_only_so_many_bytes_are_kept(east: Served, services: int) -> None:
    for number in range(3):
        await east.define(f"shop/s{number}")
    view_of, keys = east.node.projector.tables.view, east.node.projector.tables.keys()
    views = [view for key in keys if (view := view_of(key))]
    size_bytes = len(EncodedServices().of(views[0], "d", frozenset()).body)
    encoded = EncodedServices(bytes_max=services * size_bytes)
    found = [encoded.of(view, "d", frozenset()) for view in views]
    assert encoded.size_bytes == services * size_bytes
    assert encoded.of(views[-1], "d", frozenset()) is found[-1]
    assert encoded.of(views[0], "d", frozenset()) is not found[0]
