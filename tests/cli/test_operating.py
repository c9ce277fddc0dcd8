"""Draining, undraining and migrating from the command line, against real meshds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import yaml

from tests.cli.conftest import Meshd, Servers

PLAN = """\
from: east
to: west
services: [{namespace}/web]
steps:
- {{percent: 50, hold_s: 3600}}
- {{percent: 100}}
conditions: {{error_percent_max: 1}}
"""


def shop(namespace: str, name: str, host: int) -> str:
    """One service with one endpoint on a node."""
    return (
        "apiVersion: meshd.io/v1\nkind: Service\n"
        f"metadata: {{namespace: {namespace}, name: {name}}}\n"
        "spec: {ports: [{port: 80, name: http}], global: true, affinity: local}\n---\n"
        "apiVersion: meshd.io/v1\nkind: Endpoint\n"
        f"metadata: {{namespace: {namespace}, name: a}}\n"
        f"spec: {{service: {name}, address: 10.9.0.{host}, node: {namespace}}}\n---\n"
    )


@pytest.fixture
def namespace(
    request: pytest.FixtureRequest, east: Meshd, servers: Servers, tmp_path: Path
) -> Iterator[str]:
    """Give a namespace of the test's own, with the service web in both clusters and alone in east.
    What the test began is undone at its end.
    """
    words = request.node.name.removeprefix("test_")
    name = words.translate(str.maketrans("_[]", "---"))[-40:].strip("-")
    for number, url in enumerate(servers.urls.values(), 1):
        text = shop(name, "web", number) + (shop(name, "alone", 3) if number == 1 else "")
        assert east("--url", url, "apply", "-f", "-", input=text).exit_code == 0
    (tmp_path / "plan.yaml").write_text(PLAN.format(namespace=name))
    servers.converge()
    until_ready(east, "west")
    yield name
    for one in orjson.loads(east("operation", "list", "-o", "json").output):
        if one["progress"] in {"running", "paused"}:
            assert east("operation", "rollback", one["name"]).exit_code == 0


def until_ready(east: Meshd, peer: str) -> None:
    """Wait until a peer's heart has been heard, which is seconds after its log was read."""
    phases: dict[str, str] = {}
    for _ in range(300):
        found = orjson.loads(east("get", "peers", "-o", "json").output)
        phases = {one["name"]: one["phase"] for one in found}
        if phases[peer] == "Ready":
            return
        time.sleep(0.1)
    raise AssertionError(phases)


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("kind", ["service", "endpoint", "node"])
def test_something_is_drained_and_brought_back(east: Meshd, namespace: str, kind: str) -> None:
    key = {
        "service": f"{namespace}/web",
        "endpoint": f"{namespace}/web/a",
        "node": namespace,
    }[kind]
    forced = ("--force",) if kind == "node" else ()
    down = east("drain", kind, key, "--name", f"{kind}-down", "--wait", *forced)
    assert down.exit_code == 0, down.output
    rows = lines(down.output)
    assert rows[0] == ["STAGE", "TURNED", "UP", "(%)", "SERVICE", "TRAFFIC"]
    assert ["1", "0", f"{namespace}/web", "west", "100.0", "%"] in rows
    assert down.output.endswith(f"{kind}-down is done\n")
    assert ("forced although: service" in down.output) == bool(forced)
    up = east("undrain", kind, key, "--over", "0", "--name", f"{kind}-up", "-o", "json")
    assert orjson.loads(up.output)["stages"][-1]["turned_percent"] == 100
    shown = east("operation", "show", f"{kind}-up")
    assert shown.exit_code == 0
    assert ["progress", "done"] in lines(shown.output)
    assert ["1", "100", "0", "yes"] in lines(shown.output)
    assert east("operation", "remove", f"{kind}-down").exit_code == 0
    assert east("operation", "show", f"{kind}-down").exit_code == 1


def test_a_cluster_that_nobody_could_stand_in_for_is_not_drained(
    east: Meshd, namespace: str
) -> None:
    refused = east("drain", "cluster", "--floor", "0")
    assert refused.exit_code == 1
    assert f"service {namespace}/alone: nobody else could take its traffic" in refused.stderr
    assert "force it" in refused.stderr
    dry = east("drain", "cluster", "--force", "--dry-run", "--over", "60", "--steps", "2")
    assert dry.exit_code == 0
    assert ["1", "50", f"{namespace}/web", "east", "50.0", "%,", "west", "50.0", "%"] in lines(
        dry.output
    )
    assert dry.output.endswith("nothing was done (dry run)\n")


def test_a_ramp_has_steps_by_itself(east: Meshd, namespace: str) -> None:
    assert east("drain", "service", f"{namespace}/web", "--to", "40").exit_code == 0
    up = east("undrain", "service", f"{namespace}/web", "-o", "yaml", "--dry-run")
    levels = [stage["turned_percent"] for stage in yaml.safe_load(up.output)["stages"]]
    assert levels == [50, 60, 70, 80, 90, 100]


def test_a_migration_is_begun_watched_and_undone(
    east: Meshd, namespace: str, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.yaml"
    dry = east("migration", "start", "-f", str(plan), "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert dry.output.endswith("nothing was done (dry run)\n")
    plan.write_text(f"name: move\n{plan.read_text()}")
    begun = east("migration", "start", "-f", str(plan))
    assert begun.output.endswith("move has begun; see `meshd operation show move`\n")
    assert ["1", "50", f"{namespace}/web", "east", "50.0", "%,", "west", "50.0", "%"] in lines(
        begun.output
    )
    for command in (("migration", "status", "move"), ("operation", "show", "move")):
        shown = lines(east(*command).output)
        assert ["kind", "migration"] in shown
        assert ["1", "50", "3600", "yes"] in shown
        assert ["2", "0", "0", "no"] in shown
    listed = lines(east("migration", "status").output)
    assert listed[0][:3] == ["NAME", "KIND", "SUBJECTS"]
    assert listed[1][:5] == ["move", "migration", f"service/{namespace}/web", "west", "1/2"]
    assert east("migration", "signal", "move", "--error-percent", "0.1").exit_code == 0
    for move, said in (
        ("pause", "move is paused\n"),
        ("pause", "move is paused already\n"),
        ("resume", "move is running\n"),
        ("rollback", "move is rolled-back\n"),
    ):
        assert east("migration", move, "move", "--reason", "lunch").output == said
    waited = east("migration", "status", "move", "--wait")
    assert waited.exit_code == 1
    assert "move is rolled-back: lunch" in waited.stderr
    history = east("history", "operation", "move", "-o", "json")
    items = orjson.loads(history.output)["items"]
    assert [item["actor"].partition(":")[0] for item in items] == ["cli"] * 4
    assert east("operation", "remove", "move").output == "move is forgotten\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1]", "is not one plan (write one map with from, to, services and steps)"),
        ("", "is not one plan"),
        ("a: 1\n---\nb: 2\n", "is not one plan"),
        ("from: west\nto: east\nservices: [a/b]\nsteps: [{percent: 5}]", "from: is west, but"),
        ("from: east\nto: west\nservices: [a/b]\nsteps: [{percent: 5}]", "service a/b: is not a"),
        ("form: east", "form: unknown field"),
    ],
)
def test_a_bad_plan_is_refused(east: Meshd, tmp_path: Path, text: str, expected: str) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(text)
    refused = east("migration", "start", "-f", str(plan))
    assert refused.exit_code == 2
    assert expected in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("drain", "cluster", "--to", "101"),
        ("drain", "cluster", "--over", "-1"),
        ("drain", "cluster", "--steps", "0"),
        ("drain", "service"),
        ("migration", "signal", "x"),
        ("migration", "start"),
    ],
)
def test_what_is_no_command(east: Meshd, arguments: tuple[str, ...]) -> None:
    assert east(*arguments).exit_code == 2
