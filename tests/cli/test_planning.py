"""`meshd plan` against real meshds, and how a plan reads."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import yaml

from meshd.cli.planning import plan_lines
from meshd.client import FieldChangeItem, Plan
from tests.cli.conftest import Meshd, Servers
from tests.cli.test_online import file, namespace, shop

__all__ = ["file", "namespace"]


@pytest.fixture
def applied(east: Meshd, servers: Servers, file: str, namespace: str, tmp_path: Path) -> str:
    """Apply the shop in both clusters, then give a file that changes east's."""
    for url in servers.urls.values():
        assert east("--url", url, "apply", "-f", file).exit_code == 0
    servers.converge()
    path = tmp_path / "changes.yaml"
    changed = shop(namespace).replace("affinity: local", "affinity: remote")
    path.write_text(changed.replace("ready: false", "weight: 50"))
    return str(path)


def test_a_plan_as_text(east: Meshd, applied: str, namespace: str) -> None:
    before = east("status", "-o", "json").output
    result = east("plan", "-f", applied)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "as east sees it:"
    assert lines[1] == f"  ~ {namespace}/web  (backends in: 2 → 3)"
    assert "      ~ affinity: local → remote" in lines
    assert "      ~ east b" in lines
    assert "          ~ reason: not-ready → none" in lines
    west = lines.index("as west sees it:")
    assert lines[west + 1] == f"  ~ {namespace}/web  (backends in: 2 → 3)"
    assert not any("affinity" in line for line in lines[west:])
    assert lines[-1] == "2 events; 1 service would change, in the tables of 2 of 2 clusters"
    after = east("status", "-o", "json").output
    assert orjson.loads(before)["vector_text"] == orjson.loads(after)["vector_text"]
    alone = east("plan", "-f", applied, "--perspective", "west", "-o", "yaml")
    (shown,) = yaml.safe_load(alone.output)["perspectives"]
    assert shown["perspective"] == "west"


def test_a_plan_that_empties_a_service_fails_where_that_is_asked_for(
    east: Meshd, applied: str, namespace: str
) -> None:
    del applied
    removals = ("--remove", f"endpoint/{namespace}/web/a")
    assert east("plan", *removals, "--fail-on-empty").exit_code == 0, "west's is left"
    # What isn't shared has no other.
    name = f"{namespace}/own"
    text = (
        "apiVersion: meshd.io/v1\nkind: Service\n"
        f"metadata: {{namespace: {namespace}, name: own}}\n"
        "spec: {global: true, shared: false}\n"
    )
    result = east("plan", "-f", "-", *removals, input=text)
    assert result.exit_code == 0
    first = result.output.splitlines()[0]
    text_of_it = f"WARNING: {name} would have no backend that is in, as east sees it"
    assert first == f"{text_of_it} (it isn't served now)"
    assert east("plan", "-f", "-", "--fail-on-empty", input=text).exit_code == 1
    shown = east("plan", "-f", "-", "--fail-on-empty", "-o", "json", input=text)
    assert shown.exit_code == 1
    assert orjson.loads(shown.stdout)["empty"][0]["name"] == "own"


@pytest.mark.parametrize(
    ("arguments", "text", "where"),
    [
        ((), "", "there is nothing to plan"),
        (("--remove", "service/shop/nothing"), "", "?remove: this cluster has no service"),
        (("--remove", "nothing"), "", "names nothing"),
        (("-f", "-"), "kind: 5\n", "standard input:1"),
        (("-f", "-", "--remove", "nothing/x"), "kind: 5\n", "?remove"),
        (("-f", "/nowhere/x.yaml"), "", "can't read /nowhere/x.yaml"),
    ],
)
def test_what_can_not_be_planned(
    east: Meshd, arguments: tuple[str, ...], text: str, where: str
) -> None:
    result = east("plan", *arguments, input=text)
    assert result.exit_code == 2
    assert where in result.stderr


def test_an_unknown_perspective(east: Meshd) -> None:
    result = east("plan", "--perspective", "mars", "--remove", "service/shop/web")
    assert result.exit_code == 1
    assert "nothing is known of a cluster 'mars'" in result.stderr


def change(path: str, old: object, new: object) -> FieldChangeItem:
    return {"path": path, "old": old, "new": new}


PORT = {"port": 80, "name": "http", "protocol": "TCP", "app_protocol": ""}
PLAN: Plan = {
    "cluster": "east",
    "vector_text": "",
    "events": 1,
    "unknown": ["north"],
    "removed": [],
    "applied": [],
    "ignored": [
        {"where": "a.yaml:1", "kind": "Secret", "namespace": "", "name": "api", "reason": "why"}
    ],
    "empty": [
        {"perspective": "west", "namespace": "shop", "name": "web", "eligible_before": 2},
    ],
    "reach": {"changes": [], "count": 0, "complete": True},
    "perspectives": [
        {"perspective": "east", "services": []},
        {
            "perspective": "west",
            "services": [
                {
                    "namespace": "shop",
                    "name": "web",
                    "change": "added",
                    "eligible_before": None,
                    "eligible_after": 0,
                    "fields": [
                        change(
                            "ports",
                            None,
                            [PORT, PORT | {"name": "", "port": 53, "protocol": "UDP"}],
                        ),
                        change("affinity", None, "local"),
                        change("labels", None, {}),
                    ],
                    "backends": [
                        {
                            "cluster": "east",
                            "name": "a",
                            "change": "added",
                            "fields": [
                                change("address", None, "10.0.0.1"),
                                change("priority", None, 0),
                                change("zone", None, ""),
                                change("reason", None, "draining"),
                            ],
                        }
                    ],
                    "backends_omitted": 7,
                },
                {
                    "namespace": "shop",
                    "name": "cart",
                    "change": "removed",
                    "eligible_before": 1,
                    "eligible_after": None,
                    "fields": [change("affinity", "local", None)],
                    "backends": [
                        {
                            "cluster": "east",
                            "name": "a",
                            "change": "removed",
                            "fields": [change("address", "10.0.0.1", None)],
                        }
                    ],
                    "backends_omitted": 0,
                },
                {
                    "namespace": "shop",
                    "name": "pay",
                    "change": "changed",
                    "eligible_before": 1,
                    "eligible_after": 1,
                    "fields": [
                        change("tiers[0].share_ppm", 1_000_000, 512_345),
                        change("tiers[0].weight", 100, 200),
                        change("tiers[1]", None, {"priority": 5, "clusters": ["west"]}),
                        change("clusters", ["east", "west"], ["east"]),
                        change("headless", False, True),
                        change("labels.team", None, "a\x1b[2J"),
                    ],
                    "backends": [],
                    "backends_omitted": 0,
                },
            ],
        },
    ],
}


def test_how_a_plan_reads() -> None:
    assert list(plan_lines(PLAN)) == [
        "WARNING: shop/web would have no backend that is in, as west sees it (2 now)",
        "Secret api ignored: why",
        "as east sees it: nothing changes",
        "as west sees it:",
        "  + shop/web  (backends in: - → 0)",
        "      + ports: http:80, 53/UDP",
        "      + affinity: local",
        "      + east a  address 10.0.0.1, priority 0, reason draining",
        "      … and 7 backends more",
        "  - shop/cart  (backends in: 1 → -)",
        "      - east a",
        "  ~ shop/pay  (backends in: 1 → 1)",
        "      ~ tiers[0].share_ppm: 100.0 % → 51.2 %",
        "      ~ tiers[1]: none → {priority=5, clusters=west}",
        "      ~ clusters: east, west → east",
        "      ~ headless: no → yes",
        "      ~ labels.team: none → a\N{REPLACEMENT CHARACTER}[2J",
        "as north sees it: nothing is known of it yet",
        "1 event; 3 services would change, in the tables of 1 of 2 clusters",
    ]
