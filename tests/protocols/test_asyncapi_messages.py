"""What streams and brokers are really told, against asyncapi.json: all messages, every field."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
import pytest

from chaos.brokers import Heard
from meshd.edges.http import table_telling
from meshd.edges.http.outlets import ERROR
from meshd.edges.mqtt import MqttBroker
from meshd.model.command import (
    AllocateIdentity,
    Command,
    DescribeCluster,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemoveOperation,
    RemovePeer,
    RemovePolicy,
    RemoveService,
    RemoveSkip,
    SetNode,
    SetPeer,
    SetPolicy,
    SkipRecord,
    StartOperation,
)
from meshd.model.event import Event, Told
from meshd.model.ids import ClusterName, EndpointKey, Head, PolicyKey, Position, Seq, ServiceKey
from meshd.model.listed import ListedPeer, SkippedRecord
from meshd.model.node import Node
from meshd.model.operation import Operation, OperationKind, Stage
from meshd.model.policy import Policy
from meshd.model.publishing import Reset
from tests.conftest import NewBroker, Subscribe
from tests.edges.http.served import Served, Stream, serve_cluster
from tests.edges.test_mqtt import until as until_so
from tests.logs import LOG_ID, OTHER_LOG_ID, WEST, Log
from tests.mesh import Mesh, Running, endpoint, service
from tests.protocols.asyncapi_rules import (
    CHANNELS,
    check_message,
    check_shape,
    messages_of,
    pattern_of,
)
from tests.runtime.test_projector import logged, read

NORTH = ClusterName("north")
FIRST_NUMBER = (1 << 16) + 256
GADGET = Event("gadget.set", "shop/odd", {"size": 1}, "ann")
UNTOLD: Final = {"tables": {ERROR}, "condition": {ERROR}}
"""Where history can't be read a stream ends with an error; these are told from memory."""


def deeds() -> list[Command]:
    """What makes an event of every type."""
    undrain = Operation(
        kind=OperationKind.UNDRAIN, subjects=("cluster",), stages=(Stage(turned_percent=100),)
    )
    return [
        DescribeCluster(weight=7, announces=("10.0.0.0/8",)),
        service(labels={"team": "a"}),
        endpoint("shop/web/a", zone="eu-1a"),
        endpoint("shop/web/b"),
        RemoveEndpoint(EndpointKey.parse("shop/web/b")),
        service("shop/other"),
        RemoveService(ServiceKey("shop", "other")),
        SetNode("n1", Node(addresses=("10.0.0.9",))),
        RemoveNode("n1"),
        AllocateIdentity({"app": "web"}),
        RemoveIdentity(FIRST_NUMBER),
        SetPolicy(PolicyKey("shop", "db"), Policy()),
        RemovePolicy(PolicyKey("shop", "db")),
        SetPeer(NORTH, ListedPeer(endpoints=("north:2379",))),
        SkipRecord(NORTH, LOG_ID, SkippedRecord(seq=1, hash="0" * 32)),
        RemoveSkip(NORTH, LOG_ID),
        RemovePeer(NORTH),
        StartOperation("one", undrain),
        RemoveOperation("one"),
    ]


class Seen:
    """The messages of a channel that came, each held against what is said of it."""

    def __init__(self, channel: str) -> None:
        self._keys = {one["name"]: key for key, one in messages_of(channel).items()}
        self._channel = channel
        self.names: set[str] = set()

    @property
    def missing(self) -> set[str]:
        return self._keys.keys() - self.names - UNTOLD.get(self._channel, set())

    def take(self, place: str | None, event: str | None, data: Any) -> str:
        name = event or "place"
        name = name if name in self._keys else "other"
        headers = {"id": place, "event": event}
        given = {field: value for field, value in headers.items() if value}
        check_message(self._keys[name], given, data)
        self.names.add(name)
        return name


@asynccontextmanager
async def opened(east: Served, how: str, path: str, seen: Seen) -> AsyncIterator[Any]:
    """Open a stream; yields what reads up to a message of a name."""
    async with AsyncExitStack() as stack:
        if how == "ws":
            ws = await stack.enter_async_context(east.client.ws_connect(path))

            async def one() -> str:
                text = await ws.receive(timeout=20)
                assert text.type is aiohttp.WSMsgType.TEXT, text
                value = orjson.loads(text.data)
                check_shape("WebSocketText", value)
                return seen.take(value["id"], value["event"], value["data"])

        else:
            headers = {"Accept": "text/event-stream"}
            response = await stack.enter_async_context(east.client.get(path, headers=headers))
            assert response.status == 200, await response.read()
            stream = Stream(response)

            async def one() -> str:
                while True:
                    frame = await stream.frame()
                    assert frame is not None, "the stream ended"
                    if frame.id is not None or frame.data is not None:
                        return seen.take(frame.id, frame.event, frame.json)

        async def until(name: str) -> None:
            async with asyncio.timeout(20):
                while await one() != name:
                    pass

        yield until


@pytest.mark.parametrize("how", ["sse", "ws"])
async def test_the_stream_of_events(how: str) -> None:
    seen = Seen("events")
    async with serve_cluster() as east:
        for deed in deeds():
            await east.meshd.submit(deed)
        query = "?from=beginning&reset=snapshot"
        async with opened(east, how, "/v1/events" + query, seen) as until:
            await until("operation.removed")
            read(east.node.projector, WEST, Log(Head.genesis(LOG_ID)))
            east.node.projector.fold(WEST, logged(GADGET).records[0])
            await until("other")
            read(east.node.projector, WEST, logged(GADGET, log_id=OTHER_LOG_ID))
            await until("meshd.snapshot.end")
        east.node.projector.ring.reset(east.meshd.name)
        east.meshd.kv.is_denied = True
        async with opened(east, how, "/v1/events?from=beginning", seen) as until:
            await until("meshd.error")
    assert seen.missing == set()


@pytest.mark.parametrize("how", ["sse", "ws"])
async def test_the_stream_of_tables(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who selects little is told a place now and then: here, after every change.
    monkeypatch.setattr(table_telling, "PLACE_EVERY", 1)
    seen = Seen("tables")
    path = "/v1/tables/stream?delta=true&reset=snapshot&namespace=shop"
    async with serve_cluster() as east:
        await east.define()
        gone = "&after=" + await place_of(east, "/v1/tables/stream?namespace=shop", "0" * 32)
        async with opened(east, how, path + gone, seen) as until:
            await until("meshd.snapshot.end")
            await east.meshd.submit(endpoint("shop/web/a", weight=7))
            await until("meshd.table.delta")
            await east.meshd.submit(RemoveService(ServiceKey("shop", "web")))
            await until("meshd.table.removed")
            await east.define("another/web")
            await until("place")
    assert seen.missing == set()


async def place_of(east: Served, path: str, run: str) -> str:
    """A place of such a stream, as another run of meshd would have told it."""
    async with east.client.get(path) as response:
        stream = Stream(response)
        while not stream.last_id:
            await stream.frame()
    vector, _, rest = stream.last_id.partition("@")
    return f"{vector}@{run[: len(rest.partition('.')[0])]}.{rest.partition('.')[2]}"


@pytest.mark.parametrize("how", ["sse", "ws"])
async def test_the_stream_of_the_condition(how: str) -> None:
    seen = Seen("condition")
    async with serve_cluster() as east, opened(east, how, "/v1/watch", seen) as until:
        await until("meshd.mesh")
        await east.meshd.submit(SetPeer(NORTH, ListedPeer(endpoints=("north:2379",))))
        await until("meshd.peer")
        await east.meshd.submit(RemovePeer(NORTH))
        await until("meshd.peer.removed")
        await east.define()
        await until("meshd.status")
    assert seen.missing == set()


# --- MQTT -----------------------------------------------------------------------------------------


def key_of(heard: Heard) -> str:
    """Which message it is, by its topic and type; it is held against what is said of it."""
    patterns = {name: pattern_of(one["address"]) for name, one in CHANNELS.items()}
    ((channel, _),) = ((name, one) for name, one in patterns.items() if one.fullmatch(heard.topic))
    keys = messages_of(channel)
    assert heard.is_retained == (channel in {"mqttTables", "mqttStatus"})
    if channel == "mqttTables":
        key = "mqtt.table" if heard.payload else "mqtt.tableRemoved"
    elif channel == "mqttStatus":
        key = "mqtt.status" if len(heard.data) > 2 else "mqtt.will"
    else:
        key = "mqtt." + heard.user["type"].removeprefix("io.meshd.").removeprefix("meshd.")
        key = key if key in keys else "mqtt.other"
    message = keys[key]
    check_message(key, heard.user, heard.data if heard.payload else "")
    # A message that has the broker forget is no JSON, and has no type.
    assert heard.content_type == message["contentType"] or not heard.payload
    return key


async def test_what_is_published(new_broker: NewBroker, subscribe: Subscribe) -> None:
    broker = await new_broker()
    mesh = Mesh(("east",), overrides=(f"mqtt.broker={broker.address}",))
    # As published: a broker says of what it passes on at once that it isn't retained.
    subscriber = await subscribe(broker, more=("--retain-as-published",))
    expected = {key for name in CHANNELS for key in messages_of(name) if key.startswith("mqtt.")}

    async def until(wanted: set[str]) -> None:
        await until_so(lambda: {key_of(heard) for heard in subscriber.heard()} >= wanted)

    async with mesh.running("east") as east, asyncio.TaskGroup() as tasks:
        assert east.parts.node.publisher is not None
        publishing = tasks.create_task(east.parts.node.publisher.run())
        for deed in deeds():
            await east.submit(deed)
        await until({"mqtt.table", "mqtt.operation.removed"})
        await east.submit(RemoveService(ServiceKey("shop", "web")))
        await until({"mqtt.tableRemoved"})
        publishing.cancel()
        await asyncio.wait({publishing})
        await tell_what_comes_seldom(east)
        await until(expected - {"mqtt.will"})
        print(expected - {key_of(heard) for heard in subscriber.heard()})


async def tell_what_comes_seldom(east: Running) -> None:
    """A gap, an event of the future, and an end without a word."""
    mqtt = east.settings.mqtt
    assert mqtt.broker is not None
    async with MqttBroker(mqtt.broker, mqtt, east.name).connect() as session:
        at = Position(east.name, LOG_ID, Seq(7))
        await (await session.reset(Reset(None, at, "it was restored")))
        await (await session.event(Told(at, 1_700_000_000_000, GADGET)))
        # The socket ends without a DISCONNECT, so the broker says the will.
        session._client._abandon()
        with pytest.raises(Exception, match="connection is lost"):
            await session.lost()
