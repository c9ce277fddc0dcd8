"""streams.md against what streams of tables and of the condition really say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshd.core.table_changes import GONE_MAX
from meshd.edges.http.table_messages import BEGIN, DELTA, END, REMOVED, VALUE
from meshd.edges.http.watching import EVERY_S_DEFAULT, EVERY_S_MAX, MESH, PEER, PEER_REMOVED, STATUS
from meshd.model.command import RemoveService
from meshd.model.ids import ServiceKey
from tests.edges.http.served import Served, Stream, serve_cluster
from tests.mesh import Mesh, endpoint, service

TEXT = (Path(__file__).parents[2] / "protocols/streams.md").read_text()
TABLES, CONDITION = TEXT.split("## The mesh's condition")
AS_ELSEWHERE = {VALUE, PEER}
"""Messages whose fields openapi.json has."""


def rows(text: str) -> dict[str, str]:
    """The messages that a table names, and what is said of their data."""
    return dict(re.findall(r"^\| `(meshd\.[a-z.]+)` \| (.*) \|$", text, re.MULTILINE))


async def read(stream: Stream, *kinds: str) -> dict[str, Any]:
    """Read until there was one message of each kind; the last of each."""
    found: dict[str, Any] = {}
    while not found.keys() >= set(kinds):
        message = await stream.event()
        assert message.event is not None
        found[message.event] = message.json
    return found


def test_every_message_is_named() -> None:
    assert rows(TABLES).keys() == {BEGIN, VALUE, DELTA, REMOVED, END, "meshd.reset"}
    assert rows(CONDITION).keys() == {MESH, STATUS, PEER, PEER_REMOVED}


def test_its_numbers_are_those_of_the_code() -> None:
    assert f"the last\n{GONE_MAX:,}, is gone" in TABLES
    assert f"(1 to {EVERY_S_MAX}; {EVERY_S_DEFAULT})" in CONDITION


@pytest.fixture
async def east() -> AsyncIterator[Served]:
    async with serve_cluster() as served:
        yield served


async def test_every_field_of_a_tables_message_is_named(east: Served) -> None:
    await east.define()
    async with east.client.get("/v1/tables/stream?delta=true") as response:
        stream = Stream(response)
        found = await read(stream, BEGIN, VALUE, END)
        assert found[VALUE].keys() == (await east.get("/v1/tables/shop/web")).keys() | {"change"}
        await east.meshd.submit(service(labels={"a": "b"}), endpoint("shop/web/b", "10.0.0.2"))
        found |= await read(stream, DELTA)
        await east.meshd.submit(RemoveService(ServiceKey("shop", "web")))
        found |= await read(stream, REMOVED)
    for name, data in found.items():
        said = TABLES if name == DELTA else rows(TABLES)[name]
        told = data.keys() | (data["definition"].keys() if name == DELTA else set())
        assert name in AS_ELSEWHERE or [one for one in sorted(told) if f"`{one}`" not in said] == []


async def test_every_field_of_a_conditions_message_is_named() -> None:
    mesh = Mesh(("east", "west"))
    async with serve_cluster("east", mesh=mesh) as east:
        async with east.client.get("/v1/watch") as response:
            stream = Stream(response)
            found = await read(stream, MESH)
            await east.define()
            found |= await read(stream, STATUS)
        (peer,) = (await east.get("/v1/peers"))["items"]
        assert found[MESH]["peers"][0].keys() == peer.keys()
        assert found[MESH]["status"].keys() == found[STATUS].keys()
    for name in (MESH, STATUS):
        said = rows(CONDITION)[name]
        assert [one for one in sorted(found[name]) if f"`{one}`" not in said] == []
