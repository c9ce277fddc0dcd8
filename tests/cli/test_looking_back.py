"""`--as-of`, `diff` and `history` against real meshds."""

from __future__ import annotations

import orjson
import pytest

from meshd.cli.as_of import moment_text
from tests.cli.conftest import Meshd, Servers

SHOP = """
apiVersion: meshd.io/v1
kind: Service
metadata: {{namespace: {0}, name: web}}
spec: {{global: true, ports: [{{name: http, port: 80}}]}}
---
apiVersion: meshd.io/v1
kind: Endpoints
metadata: {{namespace: {0}, name: web}}
spec: {{endpoints: [{1}]}}
"""


def shop(namespace: str, *endpoints: str) -> str:
    return SHOP.format(namespace, ", ".join(endpoints))


@pytest.fixture
def at(east: Meshd, servers: Servers) -> str:
    """A vector with namespace `past` as it was first."""
    old = shop("past", "{name: a, address: 10.0.0.1}", "{name: b, address: 10.0.0.2}")
    assert east("apply", "-f", "-", input=old).exit_code == 0
    servers.converge()
    vector: str = orjson.loads(east("get", "tables", "-o", "json").output)["events_after"]
    new = shop("past", "{name: a, address: 10.0.0.1, weight: 7}", "{name: c, address: 10.0.0.3}")
    assert east("apply", "-f", "-", input=new).exit_code == 0
    return vector


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_lists_as_they_were(east: Meshd, at: str) -> None:
    of_then = ("-n", "past", "--as-of", at)
    assert [row[1] for row in rows(east("get", "endpoints", *of_then).output)[1:]] == ["a", "b"]
    assert [row[1] for row in rows(east("get", "endpoints", "-n", "past").output)[1:]] == ["a", "c"]
    assert rows(east("get", "services", *of_then).output)[1][:2] == ["past", "web"]
    table = orjson.loads(east("get", "tables", *of_then, "-o", "json").output)
    assert table["as_of"] == at
    assert rows(east("get", "tables", *of_then).output)[1][-1] == "2/2"
    shown = east("service", "show", "past/web", "--as-of", at).output
    assert "10.0.0.2" in shown
    assert "10.0.0.3" not in shown
    clusters = rows(east("get", "clusters", "--as-of", at).output)
    assert [row[0] for row in clusters[1:]] == ["east", "west"]


def test_before_anything_was_there(east: Meshd, at: str) -> None:
    assert at
    result = east("get", "tables", "--as-of", "1970-01-01T00:00:01Z")
    assert result.exit_code == 1
    assert "had no record by 1970-01-01T00:00:01.000Z" in result.stderr
    assert east("get", "tables", "--as-of", "soon").exit_code != 0


def test_a_difference(east: Meshd, at: str) -> None:
    result = east("diff", "--from", at, "-n", "past")
    assert at in result.output
    table = rows(result.output)
    start = next(number for number, row in enumerate(table) if row[:1] == ["SERVICE"])
    assert [row[:3] for row in table[start + 1 :]] == [
        ["past/web", "east/a", "changed"],
        ["past/web", "east/b", "removed"],
        ["past/web", "east/c", "added"],
    ]
    assert "weight: 100 → 7" in result.output
    answer = orjson.loads(east("diff", "--from", at, "-n", "past", "-o", "json").output)
    back = orjson.loads(
        east("diff", "--from", answer["to"], "--to", at, "-n", "past", "-o", "json").output
    )
    assert back["to"] == at
    same = east("diff", "--from", at, "--to", at)
    assert same.stderr == "nothing is different\n"
    assert east("diff").exit_code == 2


def test_a_service_that_came_and_went(east: Meshd, at: str, servers: Servers) -> None:
    assert east("apply", "-f", "-", input=shop("past-new", "")).exit_code == 0
    servers.converge()
    lines = rows(east("diff", "--from", at, "-n", "past-new").output)
    assert lines[-1] == ["past-new/web", "added"]


def test_a_history(east: Meshd, at: str) -> None:
    assert at
    steps = rows(east("history", "endpoint", "past/web/a", "--limit", "1").output)
    assert steps[0] == ["CLUSTER", "SEQ", "TIME", "ACTOR", "TYPE", "SUBJECT", "WHAT"]
    assert steps[1][0] == "east"
    assert steps[1][4:] == ["endpoint.set", "past/web/a", "weight:", "-", "→", "7"]
    first = east("history", "endpoint", "past/web/a", "--limit", "1")
    assert first.stderr.startswith("there may be more: --before east:")
    before = first.stderr.rpartition(" ")[2].strip()
    older = rows(east("history", "endpoint", "past/web/a", "--before", before).output)
    assert "address: - → 10.0.0.1" in " ".join(older[-1])
    assert len(older) > 1
    page = orjson.loads(east("history", "service", "past/web", "--endpoints", "-o", "json").output)
    assert {item["subject"] for item in page["items"]} == {
        "past/web",
        *(f"past/web/{name}" for name in "abc"),
    }


def test_names_in_the_default_namespace(east: Meshd) -> None:
    text = shop("default", "{name: a, address: 10.9.0.1}")
    assert east("apply", "-f", "-", input=text).exit_code == 0
    for kind, name in (("service", "web"), ("endpoint", "web/a"), ("service", "default/web")):
        assert "default/web" in east("history", kind, name).output
    assert east("history", "moon", "full").exit_code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-250ms", "999999750"),
        ("-10s", "999990000"),
        ("-15m", "999100000"),
        ("-2h", "992800000"),
        ("-3d", "740800000"),
        ("-1w", "395200000"),
        ("15m", "15m"),
        ("-m", "-m"),
        ("2026-01-31T12:05:00Z", "2026-01-31T12:05:00Z"),
        ("", ""),
    ],
)
def test_a_time_relative_to_now(text: str, expected: str) -> None:
    assert moment_text(text, 1_000_000_000) == expected


def test_a_little_while_ago_is_asked_for_with_a_dash(east: Meshd, at: str) -> None:
    assert at
    # It reaches the server as a time, which has another clock here.
    result = east("get", "tables", "--as-of", "-0s")
    assert "is yet to come" in result.stderr
