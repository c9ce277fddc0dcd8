"""The MQTT edge against a real mosquitto: what it says, and what it makes of what the broker does.

aiomqtt is reached behind its interface (`edges/mqtt/client.py`): these tests are what would tell
that another version of it has no such names any more.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme

from chaos.brokers import Broker, Heard, Subscriber
from meshd.edges.mqtt import MqttBroker, client
from meshd.edges.mqtt.publisher import MqttSession
from meshd.edges.mqtt.topics import Topics
from meshd.model.errors import DeniedError, TransientError
from meshd.model.event import Event, Told
from meshd.model.ids import ClusterName, LogId, Position, Seq, ServiceKey
from meshd.model.publishing import Reset
from meshd.settings import load
from tests.conftest import NewBroker, Subscribe

EAST = ClusterName("east")
LOG = LogId("a" * 32)
WEB, CART = ServiceKey("shop", "web"), ServiceKey("shop", "cart")
TOPICS = Topics("meshd/mesh/east")


def broker_of(broker: Broker | str, *overrides: str) -> MqttBroker:
    address = broker if isinstance(broker, str) else broker.address
    given = (f"mqtt.broker={address}", "cluster.name=east", "cluster.id=1", *overrides)
    mqtt = load(None, {}, given).mqtt
    assert mqtt.broker is not None
    return MqttBroker(mqtt.broker, mqtt, EAST)


def told(seq: int, kind: str = "service.set", key: str = "shop/web", data: Any = None) -> Told:
    return Told(Position(EAST, LOG, Seq(seq)), 1_700_000_000_000, Event(kind, key, data, "ann"))


async def until(what: Callable[[], bool]) -> None:
    """The test's own timeout is the limit."""
    while not what():  # noqa: ASYNC110 of another process
        await asyncio.sleep(0.02)


async def hears(subscriber: Subscriber, count: int) -> list[Heard]:
    await until(lambda: len(subscriber.heard()) >= count)
    return subscriber.heard()


# --- what is published ----------------------------------------------------------------------------


async def test_an_event_is_a_cloud_event_that_can_be_told_apart_without_reading_it(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker()
    subscriber = await subscribe(broker)
    async with broker_of(broker).connect() as session:
        await (await session.event(told(7, data={"a": "é"})))
    (heard,) = await hears(subscriber, 1)
    assert heard.topic == "meshd/mesh/east/events/service.set/shop/web"
    assert heard.content_type == "application/cloudevents+json; charset=utf-8"
    assert 0 < heard.expiry_s <= 7 * 86_400
    assert not heard.is_retained
    assert heard.user == {
        "id": f"east:{LOG}:7",
        "type": "io.meshd.service.set",
        "source": "meshd://east",
        "subject": "shop/web",
        "time": "2023-11-14T22:13:20.000Z",
        "meshdseq": "7",
    }
    assert heard.data["data"] == {"a": "é"}
    assert {name: str(heard.data[name]) for name in heard.user} == heard.user


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("node.set", "n1"),
        ("of.the.future", "with/+/#/$x/\x00/50%/\u2028/\x7f"),
        ("of/the/future", ""),
        ("x", "/".join("é" * 60 for _ in range(8))),
    ],
)
async def test_whatever_a_name_holds_the_broker_takes_it_and_the_topic_gives_it_back(
    new_broker: NewBroker, subscribe: Subscribe, kind: str, key: str
) -> None:
    broker = await new_broker()
    subscriber = await subscribe(broker)
    async with broker_of(broker).connect() as session:
        await (await session.event(told(1, kind, key)))
        await (await session.event(told(2)))
    heard, _ = await hears(subscriber, 2)
    assert TOPICS.parse_event(heard.topic) == (kind, key)
    assert heard.data["subject"] == key
    assert heard.data["type"] == f"io.meshd.{kind}"


async def test_events_do_not_expire_if_so_wanted_and_topics_begin_as_the_settings_say(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker()
    subscriber = await subscribe(broker)
    changed = ("mqtt.event_expiry_s=0", "mqtt.topic_prefix=site/a", "mqtt.mesh=test")
    async with broker_of(broker, *changed).connect() as session:
        await (await session.event(told(1)))
    (heard,) = await hears(subscriber, 1)
    assert heard.expiry_s == 0
    assert heard.topic == "site/a/test/east/events/service.set/shop/web"


async def test_a_reset_says_what_is_missing(new_broker: NewBroker, subscribe: Subscribe) -> None:
    broker = await new_broker()
    subscriber = await subscribe(broker)
    before, after = told(3).position, told(9).position
    async with broker_of(broker).connect() as session:
        await (await session.reset(Reset(before, after, "cut off")))
    (heard,) = await hears(subscriber, 1)
    assert heard.topic == "meshd/mesh/east/events/meshd.reset"
    assert heard.user["type"] == "io.meshd.meshd.reset"
    assert heard.data["data"] == {"before": str(before), "next": str(after), "reason": "cut off"}


async def test_tables_and_status_are_kept_forgotten_and_read_back(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker()
    async with broker_of(broker).connect() as session:
        await (await session.table(WEB, b'{"a":1}'))
        await (await session.table(CART, b"{}"))
        await (await session.table(CART, b""))
        await (await session.status({"state": "live"}))
        # Somebody else's, of which nothing is to be read back.
        await (await session.event(told(1)))
    subscriber = await subscribe(broker)
    kept = {heard.topic: heard for heard in await hears(subscriber, 2)}
    assert sorted(kept) == [TOPICS.status, TOPICS.table(WEB)]
    assert all(heard.is_retained and heard.expiry_s == 0 for heard in kept.values())
    assert kept[TOPICS.table(WEB)].content_type == "application/json"
    async with broker_of(broker).connect() as session, aclosing(_kept(session)) as found:
        assert await anext(found) == (WEB, b'{"a":1}')
        # What we say ourselves doesn't come back: the next is somebody else's.
        await (await session.table(WEB, b'{"a":2}'))
        _publish(broker, "-r", "-t", TOPICS.table(CART), "-m", "theirs")
        assert await anext(found) == (CART, b"theirs")


async def _kept(session: MqttSession) -> AsyncGenerator[tuple[ServiceKey, bytes]]:
    async for item in session.kept():
        yield item


def _publish(broker: Broker, *arguments: str) -> None:
    command = ("mosquitto_pub", "-h", broker.host, "-p", str(broker.port), *arguments)
    subprocess.run(command, check=True)


# --- what the broker does -------------------------------------------------------------------------


async def test_the_broker_says_that_we_are_gone_unless_we_leave_well(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker()
    subscriber = await subscribe(broker, TOPICS.status)
    async with broker_of(broker).connect() as session:
        await (await session.status({"state": "live"}))
    async with broker_of(broker).connect() as session:
        await (await session.status({"state": "live again"}))
        session._client._abandon()
        with pytest.raises(TransientError):
            await session.lost()
    states = [heard.data["state"] for heard in await hears(subscriber, 3)]
    assert states == ["live", "live again", "gone"]


async def test_a_second_connection_of_the_cluster_ends_the_first(new_broker: NewBroker) -> None:
    broker = await new_broker()
    async with broker_of(broker).connect() as first, broker_of(broker).connect() as second:
        with pytest.raises(TransientError, match="lost"):
            await first.lost()
        with pytest.raises(TransientError):
            _ = await first.event(told(1))
        await (await second.event(told(1)))


async def test_what_the_broker_refuses_is_not_taken_for_published(
    new_broker: NewBroker, tmp_path: Path
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic write meshd/mesh/east/events/service.set/#\n")
    broker = await new_broker("allow_anonymous true", f"acl_file {rules}")
    async with broker_of(broker).connect() as session:
        first = await session.event(told(1))
        refused = await session.event(told(2, "node.set", "n1"))
        await first
        with pytest.raises(DeniedError, match=r"node.set/-/n1: Not authorized"):
            await refused


@pytest.mark.parametrize("limit", ["max_packet_size 2000", "message_size_limit 2000"])
async def test_what_is_too_large_is_refused_by_itself(new_broker: NewBroker, limit: str) -> None:
    broker = await new_broker("allow_anonymous true", limit)
    async with broker_of(broker).connect() as session:
        await (await session.event(told(1)))
        with pytest.raises(ExceptionGroup) as raised:
            await _tell(session, told(2, data={"a": "x" * 3000}))
    # One broker says so beforehand, another refuses it, or just ends the connection.
    assert all("service.set/shop/web" in str(error) for error in raised.value.exceptions)


async def test_no_more_is_in_flight_than_the_broker_allows(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker("allow_anonymous true", "max_inflight_messages 3")
    subscriber = await subscribe(broker)
    async with broker_of(broker).connect() as session:
        assert session._client.in_flight_max == 3
        broker.send(signal.SIGSTOP)
        sent = [await session.event(told(seq)) for seq in range(1, 4)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                _ = await session.event(told(4))
        broker.send(signal.SIGCONT)
        sent += [await session.event(told(seq)) for seq in range(4, 200)]
        await sent[-1]
        heard = await hears(subscriber, 199)
    assert [one.user["meshdseq"] for one in heard] == [str(seq) for seq in range(1, 200)]


def set_password(users: Path, name: str, password: str) -> None:
    subprocess.run(["mosquitto_passwd", "-b", users, name, password], check=True)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("mqtt.username=ann",), "Not authorized"),
        (("mqtt.username=bob",), "Not authorized"),
        ((), "Not authorized"),
    ],
)
async def test_wrong_credentials_need_a_person(
    new_broker: NewBroker, tmp_path: Path, overrides: tuple[str, ...], reason: str
) -> None:
    users, password = tmp_path / "users", tmp_path / "password"
    users.touch()
    set_password(users, "ann", "right")
    password.write_text("wrong\n")
    broker = await new_broker("allow_anonymous false", f"password_file {users}")
    given = (*overrides, f"mqtt.password_file={password}") if overrides else ()
    ours = broker_of(broker, *given)
    with pytest.raises(DeniedError, match=reason):
        async with ours.connect():
            pass
    # The file is read again for each connection.
    password.write_text("right\n")
    if overrides == ("mqtt.username=ann",):
        async with ours.connect() as session:
            await (await session.event(told(1)))
        password.unlink()
        with pytest.raises(DeniedError, match="can't be read"):
            async with ours.connect():
                pass


async def test_nobody_there_passes_by_itself(free_address: Callable[[], str]) -> None:
    with pytest.raises(TransientError, match="can't be reached"):
        async with broker_of(free_address()).connect():
            pass


async def test_who_does_not_answer_is_left_and_nothing_stays_open(
    free_address: Callable[[], str],
) -> None:
    host, _, port = free_address().rpartition(":")
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(say_nothing, host, int(port)):
        with pytest.raises(TransientError, match="timed out"):
            async with broker_of(f"{host}:{port}", "mqtt.connect_timeout_s=0.2").connect():
                pass
        assert b"meshd-mesh-east" in await ended


def _shows(properties: bytes) -> bytes:
    """A CONNACK that accepts, with these properties."""
    return bytes((0x20, 3 + len(properties), 0, 0, len(properties))) + properties


@pytest.mark.parametrize(
    ("properties", "reason"),
    [(b"\x24\x00", "maximum QoS is 0"), (b"\x25\x00", "retained messages are not available")],
)
async def test_a_broker_that_can_not_do_what_is_needed_is_refused(
    free_address: Callable[[], str], properties: bytes, reason: str
) -> None:
    host, _, port = free_address().rpartition(":")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_shows(properties))
        while await reader.read(1000):
            pass
        writer.close()

    async with await asyncio.start_server(accept, host, int(port)):
        with pytest.raises(DeniedError, match=reason):
            async with broker_of(f"{host}:{port}").connect():
                pass


async def _tell(session: MqttSession, item: Told) -> None:
    async def tell() -> None:
        await (await session.event(item))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(session.lost())
        tasks.create_task(tell())


async def _lost(session: MqttSession) -> str:
    with pytest.raises(TransientError) as raised:
        await session.lost()
    return str(raised.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_broker_that_ends_is_noticed_at_once(
    new_broker: NewBroker, number: signal.Signals
) -> None:
    broker = await new_broker()
    async with broker_of(broker).connect() as session:
        await (await session.event(told(1)))
        broker.send(signal.SIGSTOP)
        _ = await session.event(told(2))
        await broker.stop(number)
        assert "lost" in await _lost(session)
        with pytest.raises(TransientError):
            _ = await session.event(told(3))


async def test_a_broker_that_hangs_is_noticed_by_what_it_does_not_acknowledge(
    new_broker: NewBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ACKNOWLEDGE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(client, "LOOK_EVERY_S", 0.1)
    broker = await new_broker()
    async with broker_of(broker).connect() as session:
        broker.send(signal.SIGSTOP)
        _ = await session.event(told(1))
        assert "has not acknowledged" in await _lost(session)
    broker.send(signal.SIGCONT)
    # Its connection is gone, so the next one has no message of it in flight.
    await until(lambda: "Client meshd-mesh-east disconnected" in broker.log())


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
def address(free_address: Callable[[], str]) -> str:
    return free_address()


@pytest.fixture
def papers(tmp_path: Path, address: str) -> Callable[[str], Path]:
    """Certificates of one authority, and of another one."""
    host = address.partition(":")[0]
    for name, authority in (("ours", trustme.CA()), ("theirs", trustme.CA())):
        authority.cert_pem.write_to_path(tmp_path / f"{name}-ca.pem")
        leaf = authority.issue_cert(host, common_name=name)
        leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    return lambda name: tmp_path / f"{name}.pem"


# paho doesn't close a socket on which a handshake failed; Python does.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tls_with_client_certificates(
    new_broker: NewBroker, papers: Callable[[str], Path], address: str
) -> None:
    server = papers("ours")
    await new_broker(
        *("allow_anonymous true", "require_certificate true"),
        *(f"cafile {papers('ours-ca')}", f"certfile {server}", f"keyfile {server}"),
        address=address,
    )

    def ours(authority: str, leaf: str) -> MqttBroker:
        files = f"ca_file: {papers(authority)}"
        if leaf:
            files += f", cert_file: {papers(leaf)}, key_file: {papers(leaf)}"
        return broker_of(address, f"mqtt.tls={{{files}}}", "mqtt.connect_timeout_s=1")

    async with ours("ours-ca", "ours").connect() as session:
        await (await session.event(told(1)))
    for authority, leaf in (("theirs-ca", "ours"), ("ours-ca", "theirs"), ("ours-ca", "")):
        with pytest.raises(TransientError):
            async with ours(authority, leaf).connect():
                pass


def test_the_will_is_json() -> None:
    will = broker_of("127.0.0.1:1883")._messages.will()
    assert orjson.loads(will.payload) == {"state": "gone", "cluster": "east"}
    assert (will.topic, will.is_retained) == (TOPICS.status, True)
