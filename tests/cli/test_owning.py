"""Applying in somebody's name, and only what was shown, against a real meshd."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Meshd
from tests.cli.test_online import shop

EMPTY = "# nothing\n"


class Files:
    """A manifest that changes."""

    def __init__(self, path: Path, namespace: str) -> None:
        self.path = path
        self.namespace = namespace

    def write(self, text: str) -> str:
        self.path.write_text(text)
        return str(self.path)

    @property
    def whole(self) -> str:
        return self.write(shop(self.namespace))

    @property
    def service_alone(self) -> str:
        return self.write(shop(self.namespace).split("---")[0])


@pytest.fixture
def files(tmp_path: Path, request: pytest.FixtureRequest) -> Files:
    """Give a file of the test's own, about a namespace of its own."""
    name = request.node.name.replace("_", "-")[:60].strip("-[]")
    return Files(tmp_path / "shop.yaml", name)


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_what_an_owner_no_longer_has_is_pruned(east: Meshd, files: Files) -> None:
    owner = ("--owner", files.namespace)
    assert east("apply", "-f", files.whole, *owner).exit_code == 0
    refused = east("apply", "-f", files.whole, "--owner", "green")
    assert refused.exit_code == 2
    assert f"{files.path}:2 Service" in refused.stderr
    assert f"belongs to {files.namespace}, not to green" in refused.stderr
    assert "--take-over" in refused.stderr

    pruned = east("apply", "-f", files.service_alone, *owner, "--prune")
    ns = files.namespace
    assert lines(pruned.output)[:3] == [
        f"Service {ns}/web unchanged",
        f"Endpoint {ns}/web/a removed",
        f"Endpoint {ns}/web/b removed",
    ]
    assert "\n2 events, now at east:" in pruned.output
    empty = files.write(EMPTY)
    assert east("apply", "-f", empty, *owner, "--prune").exit_code == 2
    emptied = east("apply", "-f", empty, *owner, "--prune", "--allow-empty")
    assert lines(emptied.output)[0] == f"Service {ns}/web removed"
    assert east("get", "services", "-n", ns, "-o", "json").output == "[]\n"


@pytest.mark.parametrize("flag", ["--prune", "--take-over"])
def test_pruning_is_about_an_owners_things(east: Meshd, files: Files, flag: str) -> None:
    result = east("apply", "-f", files.whole, flag)
    assert result.exit_code == 2
    assert "add --owner NAME" in result.stderr


def test_a_diff_asks_on_a_terminal_and_nowhere_else(
    east: Meshd, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = east("apply", "-f", files.whole, "--diff")
    assert refused.exit_code == 2
    assert "add --yes" in refused.stderr
    assert "--dry-run" in refused.stderr
    assert refused.stdout == ""

    monkeypatch.setattr("meshd.cli.applying.has_terminal", lambda: True)
    no = east("apply", "-f", files.whole, "--diff", input="n\n")
    assert no.exit_code == 1
    assert "nothing was applied" in no.stderr
    ns = files.namespace
    assert f"Service {ns}/web created (dry run)" in lines(no.stdout)
    assert "  + global: true" in lines(no.stdout)
    assert east("get", "services", "-n", ns, "-o", "json").output == "[]\n"

    yes = east("apply", "-f", files.whole, "--diff", input="y\n")
    assert yes.exit_code == 0
    assert f"Service {ns}/web created" in lines(yes.stdout)


def test_a_diff_says_what_changes_from_what_to_what(east: Meshd, files: Files) -> None:
    east("apply", "-f", files.whole)
    changed = shop(files.namespace).replace("affinity: local", "affinity: remote")
    changed = changed.replace("    - {name: b, address: 10.0.0.2, ready: false}\n", "")
    shown = east("apply", "-f", files.write(changed), "--diff", "--yes", "-o", "json")
    assert shown.exit_code == 0
    ns = files.namespace
    assert lines(shown.stderr)[:4] == [
        f"Service {ns}/web updated (dry run)",
        '  ~ affinity: "local" -> "remote"',
        f"Endpoints {ns}/web updated (dry run)",
        '  - endpoints.b: {"address":"10.0.0.2","ready":false,"source":"Endpoints/' + ns + '/web"}',
    ]
    answer = orjson.loads(shown.stdout)
    assert (answer["dry_run"], answer["events"]) == (False, 2)


def test_what_was_shown_is_what_is_done_or_nothing_is(
    east: Meshd, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, ns = files.whole, files.namespace
    other = files.path.with_name("other.yaml")
    other.write_text(shop(ns + "-2"))
    meanwhile: list[int] = []

    def confirm(*_: object, **__: object) -> bool:
        meanwhile.append(east("apply", "-f", str(other)).exit_code)
        return True

    monkeypatch.setattr("meshd.cli.applying.has_terminal", lambda: True)
    monkeypatch.setattr("click.confirm", confirm)
    moved = east("apply", "-f", file, "--diff")
    assert (moved.exit_code, meanwhile) == (1, [0])
    assert "nothing was done: look again" in moved.stderr
    assert east("get", "services", "-n", ns, "-o", "json").output == "[]\n"


def test_nodes_identities_and_clusters_are_shown(east: Meshd, files: Files) -> None:
    text = """
apiVersion: meshd.io/v1
kind: Node
metadata: {name: n1, labels: {rack: "7"}}
spec: {addresses: [10.0.1.1], pod_cidrs: [10.1.1.0/24, fd00::/64], zone: a}
---
apiVersion: meshd.io/v1
kind: Node
metadata: {name: n2}
spec: {addresses: [10.0.1.2], pod_cidrs: [10.1.1.0/25]}
---
apiVersion: meshd.io/v1
kind: Identity
metadata: {name: web}
spec: {labels: {app: web, set: placing}}
---
apiVersion: meshd.io/v1
kind: Cluster
metadata: {name: east}
spec: {state: draining, weight: 10}
"""
    owner = ("--owner", "placing")
    assert "Cluster east updated" in east("apply", "-f", files.write(text), *owner).output
    table = [line.split() for line in lines(east("get", "nodes").output)]
    assert table[1][:4] == ["n1", "10.0.1.1", "10.1.1.0/24,", "fd00::/64"]
    assert [row[0] for row in table[1:]] == ["n1", "n2"]
    filtered = orjson.loads(east("get", "nodes", "-l", "rack=7", "-o", "json").output)
    assert [one["name"] for one in filtered] == ["n1"]
    assert orjson.loads(east("node", "show", "n1", "-o", "json").output) == filtered[0]
    assert "pod cidrs" in east("node", "show", "n1").output
    (identity,) = orjson.loads(east("get", "identities", "-l", "set=placing", "-o", "json").output)
    # Others of this run may have numbers already.
    assert identity["number"] >= 65_792
    assert identity["source"] == "Owner/placing"
    assert "app=web" in east("get", "identities").output
    assert east("get", "nodes", "--cluster", "west").stderr == "there are none\n"

    clusters = lines(east("get", "clusters").output)
    assert "draining" in clusters[1]
    assert "1 node-ranges-overlap" in clusters[1]
    shown = east("cluster", "show", "east").output
    assert "10.1.1.0/25 of node n2 of east lies in 10.1.1.0/24 of node n1 of east" in shown
    found = orjson.loads(east("cluster", "show", "east", "-o", "json").output)
    assert (found["weight"], found["conditions_count"]) == (10, 1)
    west = east("cluster", "show", "west").output
    assert ("conditions" in west, "conditions count" in west) == (True, False), west

    files.write(text.split("---")[3].replace("{state: draining, weight: 10}", "{}"))
    done = east("apply", "-f", str(files.path), *owner, "--prune")
    assert (
        f"Node n1 removed\nNode n2 removed\nIdentity {identity['number']} removed\n" in done.output
    )
