"""What is told to programs outside: the JSON of events and of a table's services."""

import tracemalloc
from dataclasses import replace
from typing import Any

import orjson
import pytest

from meshd.core.derive import derive
from meshd.core.telling import DATA_DEPTH_MAX, cloud_event, event_bytes, reset_event, table_service
from meshd.model.event import Event, Told
from meshd.model.ids import ClusterName, LogId, Position, Seq
from meshd.model.publishing import Reset
from meshd.model.table import WEIGHT_UNIT, Condition, ConditionType
from tests.core.model_mesh import WEB, Cluster, down, states_of, up

EAST, WEST = ClusterName("east"), ClusterName("west")
PLACE = Position(WEST, LogId("a" * 32), Seq(5))
STATES = states_of({EAST: Cluster(endpoints=up(1)), WEST: Cluster(endpoints=(*up(1), *down(1)))})
SERVICE = derive(EAST, STATES, dict.fromkeys(STATES, LogId("a" * 32)))[WEB]


def told(data: Any) -> Told:
    return Told(PLACE, 1_700_000_000_000, Event("service.set", "shop/web", data, "ann", "secret"))


def json_of(fields: object) -> Any:
    return orjson.loads(orjson.dumps(fields))


def test_an_event_is_a_cloud_event_without_its_cause() -> None:
    assert cloud_event(told({"a": 1})) == {
        "specversion": "1.0",
        "id": str(PLACE),
        "source": "meshd://west",
        "type": "io.meshd.service.set",
        "subject": "shop/web",
        "time": "2023-11-14T22:13:20.000Z",
        "datacontenttype": "application/json",
        "meshdcluster": "west",
        "meshdseq": 5,
        "meshdactor": "ann",
        "data": {"a": 1},
    }


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"a": [1, None, 1.5, True]}, {"a": [1, None, 1.5, True]}),
        ({"a": b"\x00\xff"}, {"a": "AP8="}),
        ({"a": {b"\x01": [1, (2,)]}}, {"a": {"AQ==": [1, [2]]}}),
        ({"a": 1j}, {"a": "1j"}),
    ],
)
def test_whatever_data_there_is_comes_out_as_json(data: Any, shown: Any) -> None:
    assert orjson.loads(event_bytes(told(data)))["data"] == shown


def test_what_is_nested_without_end_is_cut() -> None:
    data: Any = {}
    for _ in range(4 * DATA_DEPTH_MAX):
        data = {"a": data}
    assert "…" in event_bytes(told(data)).decode()


@pytest.mark.parametrize("before", [None, Position(WEST, LogId("b" * 32), Seq(9))])
def test_a_reset_says_from_where_to_where(before: Position | None) -> None:
    fields = json_of(reset_event(Reset(before, PLACE, "why")))
    assert fields["type"] == "io.meshd.meshd.reset"
    assert fields["source"] == "meshd://west"
    assert fields["data"] == {
        "before": None if before is None else str(before),
        "next": str(PLACE),
        "reason": "why",
    }
    assert fields["id"] != str(PLACE)


def test_a_service_is_told_with_its_backends_and_who_is_out_of_sight() -> None:
    condition = Condition(ConditionType.PORTS_CONFLICT, WEST, "why")
    service = replace(SERVICE, conditions=(condition,))
    fields = json_of(table_service(service, "ab", frozenset({WEST})))
    assert (fields["namespace"], fields["name"], fields["digest"]) == ("shop", "web", "ab")
    assert fields["clusters"] == ["east", "west"]
    assert fields["stale"] == ["west"]
    assert fields["conditions"] == [{"type": "PortsConflict", "cluster": "west", "message": "why"}]
    assert [(b["cluster"], b["eligible"]) for b in fields["backends"]].count(("west", False)) == 1
    assert all(tier["weight"] == int(tier["weight"]) for tier in fields["tiers"])


@pytest.mark.parametrize(("weight", "shown"), [(WEIGHT_UNIT * 3, 3), (WEIGHT_UNIT // 2, 0.5)])
def test_weights_are_whole_where_they_can_be(weight: int, shown: float) -> None:
    backends = (replace(SERVICE.backends[0], weight=weight),)
    fields = table_service(replace(SERVICE, backends=backends), "", frozenset())
    assert repr(json_of(fields)["backends"][0]["weight"]) == repr(shown)


def test_an_encoded_event_takes_the_memory_of_its_text() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = [event_bytes(told({"number": number})) for number in range(1000)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < 2 * sum(map(len, kept))
