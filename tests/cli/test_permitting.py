"""`meshd policy`: what a person sees, and what a script gets."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from meshd.cli.permitting import peer_text, selector_text
from meshd.model.policy import Policy
from meshd.model.schema import all_data, from_data
from tests.cli.conftest import Meshd
from tests.network_policies import is_allowed, pods_in


def rows(text: str) -> list[list[str]]:
    """The cells of a table; there are two spaces between them at least."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {{namespace: {namespace}, name: web}}
spec: {{template: {{metadata: {{labels: {{app: web, pod-template-hash: x}}}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{namespace: {namespace}, name: db}}
spec: {{template: {{metadata: {{labels: {{app: db}}}}}}}}
---
apiVersion: meshd.io/v1
kind: Policy
metadata: {{namespace: {namespace}, name: db}}
spec:
  subjects: {{labels: {{app: db}}}}
  ingress:
    - peers: [{{labels: {{labels: {{app: web}}}}}}]
      ports: [{{port: 5432}}]
    - peers: [{{cidr: 192.0.2.0/24}}]
      http: [{{methods: [GET], path: /x}}]
---
apiVersion: meshd.io/v1
kind: Policy
metadata: {{namespace: {namespace}, name: nobody}}
spec: {{subjects: {{labels: {{app: none}}}}}}
"""


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """Give one that only this test uses."""
    return re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")


@pytest.fixture
def shop(east: Meshd, namespace: str) -> str:
    """Give a namespace with web, db and two policies in it."""
    text = MANIFESTS.format(namespace=namespace)
    result = east("apply", "-f", "-", "--dry-run", input=text)
    assert "(read as an identity: the labels of its pods and its namespace; left" in result.output
    result = east("apply", "-f", "-", input=text)
    assert result.exit_code == 0, result.output
    return namespace


def test_policies_are_listed_and_shown(east: Meshd, shop: str) -> None:
    table = rows(east("policy", "list", "-n", shop).output)
    assert table[0][:4] == ["NAMESPACE", "NAME", "ISOLATES", "RULES"]
    assert [line[:6] for line in table[1:]] == [
        [shop, "db", "ingress", "2", "mesh", table[1][5]],
        [shop, "nobody", "ingress", "0", "mesh", "SelectsNothing"],
    ]
    shown = east("policy", "show", f"{shop}/db").output
    assert "app=web" in shown
    assert "TCP/5432" in shown
    assert "192.0.2.0/24" in shown
    assert "GET /x (prefix)" in shown
    assert "SelectsNothing: no identity" in east("policy", "show", f"{shop}/nobody").output
    data = orjson.loads(east("policy", "show", f"{shop}/db", "-o", "json").output)
    assert data["subjects"] == {"labels": {"app": "db"}, "expressions": []}
    assert east("policy", "show", "nobody-there").exit_code == 1


@pytest.mark.parametrize(
    ("source", "destination", "verdict", "status"),
    [
        ("{}/web", "{}/db:5432", "allowed", 0),
        ("{}/web@east", "{}/db@east:5433", "denied", 1),
        ("192.0.2.1", "{}/db:80", "conditional", 3),
        ("{}/web", "{}/app=db@south:5432", "unknown", 3),
    ],
)
def test_a_check_tells_people_and_scripts(
    east: Meshd, shop: str, source: str, destination: str, verdict: str, status: int
) -> None:
    ends = source.format(shop), destination.format(shop)
    result = east("policy", "check", "--from", ends[0], "--to", ends[1])
    assert result.exit_code == status, result.output
    assert f"verdict  {verdict}" in result.output
    data = orjson.loads(
        east("policy", "check", "--from", ends[0], "--to", ends[1], "-o", "json").output
    )
    assert data["verdict"] == verdict


def test_a_check_names_what_it_goes_by(east: Meshd, shop: str) -> None:
    output = east("policy", "check", "--from", f"{shop}/web", "--to", f"{shop}/db:5432").output
    assert "ingress rule 0 of" in output
    assert "east:" in output
    asked = east("policy", "check", "--from", f"{shop}/new=x", "--to", f"{shop}/db:1")
    assert "no identity of east has the labels of" in asked.output
    wrong = east("policy", "check", "--from", f"{shop}/nobody", "--to", f"{shop}/db:1")
    assert wrong.exit_code == 2
    assert "is no service and no workload of east (there are db, web)" in wrong.stderr


def test_the_matrix(east: Meshd, shop: str) -> None:
    table = rows(east("policy", "matrix", "-n", shop).output)
    assert table[0] == ["FROM", "TO", "PORTS", "CONDITIONAL"]
    web, db = (f"{shop}/app={app}@east" for app in ("web", "db"))
    assert [line[:3] for line in table[1:]] == [
        [web, web, "all"],
        [web, db, "TCP/5432"],
        [db, web, "all"],
    ]
    page = orjson.loads(east("policy", "matrix", "-n", shop, "-o", "json").output)
    assert [one["ports"] for one in page["items"]] == [["all"], ["TCP/5432"], ["all"]]
    cut = east("policy", "matrix", "-n", shop, "--limit", "1")
    assert "and 1 of 2 sources more" in cut.stderr


BOUTIQUE = Path(__file__).parents[3] / "shared/data/boutique"


@pytest.mark.skipif(not BOUTIQUE.exists(), reason=f"{BOUTIQUE} is not on this machine")
def test_the_boutiques_matrix_is_as_an_independent_evaluator_says(east: Meshd) -> None:
    files = [BOUTIQUE / "kubernetes-manifests.yaml", BOUTIQUE / "network-policies.yaml"]
    manifests, policies = (
        [one for one in yaml.safe_load_all(file.read_text()) if one is not None] for file in files
    )
    given = [part for file in files for part in ("-f", str(file))]
    try:
        assert east("apply", *given, "--owner", "boutique").exit_code == 0
        table = rows(east("policy", "matrix", "-n", "default").output)
        again = east("apply", *given, "--owner", "boutique").output
    finally:
        gone = east("apply", "-f", "-", "--owner", "boutique", "--prune", "--allow-empty", input="")
    assert "0 events" in again
    assert gone.output.count("Policy default/") == 13
    printed = {(line[0], line[1]): line[2].split(", ") for line in table[1:]}
    pods = {
        f"default/{','.join(f'{name}={value}' for name, value in pod.labels)}@east": pod
        for pod in pods_in(manifests, "east")
    }
    assert {name for pair in printed for name in pair} <= pods.keys()
    ports = {str(number) for number in re.findall(r"port: (\d+)", files[1].read_text())}
    assert len(ports) > 5
    for (one, source), (other, destination), port, protocol in product(
        pods.items(), pods.items(), (*ports, "1"), ("TCP", "UDP")
    ):
        expected = is_allowed({"east": policies}, source, destination, protocol, int(port))
        found = printed.get((one, other), [])
        assert (bool({"all", f"{protocol}/{port}"} & set(found))) is expected, (one, other, port)


def test_a_plan_tells_who_may_no_longer_talk_to_whom(east: Meshd, shop: str) -> None:
    planned = east("plan", "--remove", f"policy/{shop}/db").output
    assert "who may talk to whom:" in planned
    assert f"{shop}/app=web@east to {shop}/app=db@east: TCP/5432 → all" in planned
    history = east("history", "policy", f"{shop}/db").output
    assert "policy.set" in history


def test_peers_and_selectors_in_words() -> None:
    expression = {"key": "tier", "operator": "In", "values": ["a", "b"]}
    there = {"key": "old", "operator": "Exists"}
    selector = {"labels": {"app": "x"}, "expressions": [expression, there]}
    peers = [
        {"labels": selector, "namespaces": {"names": ["shop"]}, "clusters": {"clusters": ["west"]}},
        {"namespaces": {}, "clusters": {}},
        {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]},
        {"dns": "*.example.org"},
    ]
    policy = {"directions": ["egress"], "egress": [{"peers": peers}]}
    data: Any = all_data(from_data(Policy, policy, ""))
    (rule,) = data["egress"]
    assert [peer_text(peer) for peer in rule["peers"]] == [
        "app=x, tier In (a, b), old Exists of namespaces shop of clusters clusters west",
        "all of all namespaces of all clusters",
        "10.0.0.0/8 but 10.1.0.0/16",
        "*.example.org",
    ]
    assert selector_text({"labels": None, "expressions": []}) == ""
