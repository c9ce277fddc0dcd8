"""Problems in people's words, and two ways with unknown fields: people's input and newer peers'."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.schema import PROBLEMS_MAX, from_data, json_schema
from meshd.model.service import Service


def problems_of(data: object, where: str = "") -> list[str]:
    with pytest.raises(RejectedError) as error:
        from_data(Service, data, where)
    return [str(problem) for problem in error.value.problems]


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "where", "said"),
    [
        ({"globl": True}, "", ["globl: unknown field (remove it or check its spelling)"]),
        ({"globl": True}, "body", ["body.globl: unknown field (remove it or check its spelling)"]),
        ({"ports": [{"name": "x"}]}, "", ["ports[0].port: is missing (add it)"]),
        (
            {"ports": [{"port": 80, "nam": "x"}]},
            "web",
            ["web.ports[0].nam: unknown field (remove it or check its spelling)"],
        ),
        ({"global": "x" * 500}, "", [f"global: should be a valid boolean; it is '{'x' * 79}…"]),
        (
            {"ports": [{"port": 1}, {"port": 2}]},
            "",
            ["ports: two ports have the same name; it is [{'port': 1}, {'port': 2}]"],
        ),
    ],
)
def test_a_problem_has_a_place_and_a_remedy(data: object, where: str, said: list[str]) -> None:
    assert problems_of(data, where) == said


def test_all_problems_are_told_at_once() -> None:
    told = problems_of({"global": 1, "affinity": "far", "globl": 1, "ports": [{}]})
    assert len(told) == 4


@pytest.mark.parametrize("data", [None, [], "x", 1, b"", {b"global": True}, {1: True}])
def test_what_is_no_map_with_names_is_a_problem_too(data: object) -> None:
    assert len(problems_of(data)) == 1


@pytest.mark.parametrize(
    "data",
    [
        {"global": nested(1010)},
        {"labels": {"a": nested(1010)}},
        nested(1010),
        {"created_ms": 10**5000},
    ],
    ids=["value", "label", "all", "number"],
)
def test_a_bottomless_value_is_a_problem_and_no_crash(data: object) -> None:
    (told,) = problems_of(data)
    assert len(told) < 300


@pytest.mark.parametrize(
    "data",
    [
        {"labels": {str(number): number for number in range(20_000)}},
        {"labels": {"k" * 500_000: 1}},
        {"x" * 500_000: 1},
        {"ports": ["x" * 1000] * 500},
    ],
    ids=["many", "long label", "long field", "many ports"],
)
def test_a_strangers_record_can_not_make_a_reason_of_megabytes(data: object) -> None:
    told = problems_of(data)
    assert len(told) <= PROBLEMS_MAX + 1
    assert sum(map(len, told)) < 300 * (PROBLEMS_MAX + 1)


def test_of_very_many_problems_the_rest_is_counted() -> None:
    told = problems_of({"labels": {str(number): number for number in range(250)}}, "body")
    assert told[-1] == "body: and 150 problems more"
    assert len(told) == PROBLEMS_MAX + 1


def test_a_newer_writers_fields_are_ignored_but_known_ones_are_still_checked() -> None:
    newer = {"global": True, "moon": 1, "ports": [{"port": 80, "phase": "full"}]}
    service = from_data(Service, newer, "", "ignore")
    assert service == from_data(Service, {"global": True, "ports": [{"port": 80}]}, "")
    with pytest.raises(RejectedError, match="global"):
        from_data(Service, newer | {"global": 1}, "", "ignore")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            Service,
            {
                *("ports", "global", "shared", "headless", "session_affinity"),
                *("session_timeout_s", "affinity", "tiers", "spill", "staleness", "weight"),
                *("exposure", "export", "import", "probe", "labels", "selector", "source"),
                *("created_ms", "turned_percent"),
            },
        ),
        (
            ClusterInfo,
            {
                *("name", "id", "region", "zone", "labels", "state", "weight", "announces"),
                *("audiences", "turned_percent"),
            },
        ),
    ],
)
def test_the_json_schema_uses_the_names_on_the_wire(kind: type[Any], names: set[str]) -> None:
    assert set(json_schema(kind)["properties"]) == names


def test_the_json_schema_knows_what_must_be_there() -> None:
    assert json_schema(Endpoint)["required"] == ["address"]
