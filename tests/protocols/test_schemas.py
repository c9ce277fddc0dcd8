"""The generated files are current, and real events are what their schemas say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from prometheus_client.metrics import MetricWrapperBase

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.state import ClusterState
from meshd.model.cluster import Availability, ClusterInfo
from meshd.model.command import (
    AllocateIdentity,
    DescribeCluster,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemoveOperation,
    RemovePeer,
    RemovePolicy,
    RemoveService,
    RemoveSkip,
    SetCluster,
    SetNode,
    SetPeer,
    SetPolicy,
    SkipRecord,
    StartOperation,
    Submission,
)
from meshd.model.event import Event, EventType
from meshd.model.identity import identity_number
from meshd.model.ids import ClusterName, EndpointKey, LogId, PolicyKey, ServiceKey
from meshd.model.listed import ListedPeer, ListedTls, SkippedRecord
from meshd.model.node import Node
from meshd.model.operation import Operation, OperationKind, Stage
from meshd.model.policy import Direction, HttpMatch, Policy, Rule, RulePeer, RulePort
from meshd.model.service import Affinity, Port, Transport
from meshd.model.staleness import Staleness
from meshd.telemetry import metrics
from tests.mesh import endpoint, service

ROOT = Path(__file__).parents[2]
PROTOCOLS = ROOT / "protocols"


def test_generated_files_are_current() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "scripts/make_schemas.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr


def test_golden_records_are_not_made_again() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts/make_golden.py"], capture_output=True, check=False
    )
    assert made.returncode == 1
    assert b"never rewritten" in made.stderr


def _schema(kind: str) -> Any:
    return json.loads((PROTOCOLS / f"events/{kind}.schema.json").read_text())


def test_every_event_type_has_a_schema_that_is_one() -> None:
    names = {path.name.removesuffix(".schema.json") for path in (PROTOCOLS / "events").iterdir()}
    assert names == set(EventType)
    for name in names:
        Draft202012Validator.check_schema(_schema(name))


DRAIN = Operation(
    kind=OperationKind.DRAIN, subjects=("cluster",), stages=(Stage(turned_percent=0),), to="b"
)


def _events() -> list[Event]:
    ports = (Port(80, "http", app_protocol="http"), Port(53, "dns", Transport.UDP))
    info = ClusterInfo(
        name="east", id=511, region="eu", zone="a", labels={"x": "y"}, audiences=("eu",)
    )
    commands = (
        SetCluster(info),
        service("shop/web", ports=ports, is_shared=False, affinity=Affinity.REMOTE),
        service("shop/plain", ports=(), is_global=False, affinity=Affinity.NONE),
        endpoint("shop/web/a"),
        endpoint(
            "shop/web/b",
            "2001:db8::1",
            ports=ports,
            ready=False,
            serving=True,
            terminating=True,
            weight=0,
            zone="z",
            node="n",
            labels={"é": "日本"},
            source="file",
        ),
        RemoveEndpoint(EndpointKey.parse("shop/web/a")),
        RemoveService(ServiceKey("shop", "web")),
        DescribeCluster(Availability.MAINTENANCE, 0, ("10.1.0.0/16", "2001:db8:1::/48")),
        SetNode(
            "n1.east",
            Node(
                addresses=("10.0.0.1", "2001:db8::1"),
                pod_cidrs=("10.1.1.0/24",),
                tunnel_endpoint="[2001:db8::1]:51820",
                public_key="key=",
                zone="z",
                labels={"a": "b"},
                audiences=("eu", "mesh"),
            ),
        ),
        RemoveNode("n1.east"),
        AllocateIdentity({"app": "web"}, ("eu", "mesh"), "file"),
        RemoveIdentity(identity_number(511, 256)),
        SetPolicy(
            PolicyKey("shop", "web.v1"),
            Policy(
                directions=(Direction.EGRESS, Direction.INGRESS),
                ingress=(
                    Rule(
                        peers=(RulePeer(cidr="10.0.0.0/8", but=("10.1.0.0/16",)),),
                        ports=(RulePort(port=80, end_port=90), RulePort(name="http")),
                        http=(HttpMatch(methods=("GET",)),),
                    ),
                ),
                egress=(Rule(peers=(RulePeer(dns="*.example.org"),)),),
            ),
        ),
        RemovePolicy(PolicyKey("shop", "web.v1")),
        SetPeer(
            ClusterName("b"),
            ListedPeer(
                endpoints=("b:2379", "[::1]:2379"),
                tls=ListedTls(ca_file="/ca.pem", server_name="b.example"),
                staleness=Staleness(stale_after_s=7),
                announces=("10.0.0.0/8",),
            ),
        ),
        SkipRecord(ClusterName("b"), LogId("f" * 32), SkippedRecord(seq=3, hash="0" * 32)),
        RemoveSkip(ClusterName("b"), LogId("f" * 32)),
        RemovePeer(ClusterName("b")),
        StartOperation("one", DRAIN),
        RemoveOperation("one"),
    )
    decision = decide(Draft(OfState(ClusterState())), Submission(commands, "ann"), 1)
    told = [event for events in decision.exports.values() for event in events]
    return [*decision.events, *told]


def test_real_events_are_what_their_schemas_say() -> None:
    events = _events()
    assert {event.type for event in events} == set(EventType)
    for event in events:
        Draft202012Validator(_schema(event.type)).validate(event.data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (EventType.CLUSTER_SET, {"name": "east"}),
        (EventType.CLUSTER_SET, {"name": "East", "id": 1}),
        (EventType.CLUSTER_SET, {"name": "east", "id": 512}),
        (EventType.SERVICE_SET, {"affinity": "near"}),
        (EventType.SERVICE_SET, {"ports": [{"port": 0}]}),
        (EventType.SERVICE_SET, None),
        (EventType.SERVICE_REMOVED, {}),
        (EventType.ENDPOINT_SET, {}),
        (EventType.ENDPOINT_SET, {"address": "10.0.0.1", "weight": 1001}),
        (EventType.ENDPOINT_REMOVED, {}),
        (EventType.CLUSTER_SET, {"name": "east", "id": 1, "state": "asleep"}),
        (EventType.NODE_SET, {}),
        (EventType.NODE_SET, {"addresses": []}),
        (EventType.NODE_SET, {"addresses": ["10.0.0.1"], "audiences": []}),
        (EventType.NODE_REMOVED, {}),
        (EventType.IDENTITY_SET, {}),
        (EventType.IDENTITY_SET, {"labels": {"a": 1}}),
        (EventType.IDENTITY_REMOVED, {}),
        (EventType.POLICY_SET, {"directions": []}),
        (EventType.POLICY_SET, {"subjects": {"expressions": [{"key": "a", "operator": "Is"}]}}),
        (EventType.POLICY_SET, {"ingress": [{"ports": [{"port": 0}]}]}),
        (EventType.POLICY_REMOVED, {}),
        (EventType.PEER_SET, {}),
        (EventType.PEER_SET, {"endpoints": []}),
        (EventType.PEER_SET, {"endpoints": ["http://b:2379"]}),
        (EventType.PEER_SET, {"endpoints": ["b:2379"], "password_file": "relative"}),
        (EventType.PEER_REMOVED, {}),
        (EventType.SKIP_SET, {"log_id": "f" * 32, "records": []}),
        (EventType.SKIP_SET, {"log_id": "f" * 32, "records": [{"seq": 0, "hash": "0" * 32}]}),
        (EventType.SKIP_REMOVED, {}),
        (EventType.OPERATION_SET, {"kind": "drain", "subjects": ["cluster"], "stages": []}),
        (EventType.OPERATION_REMOVED, {}),
    ],
)
def test_schemas_forbid_what_the_code_forbids(kind: EventType, data: object) -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(_schema(kind)).validate(data)


def test_metrics_md_lists_exactly_the_metrics() -> None:
    rows = re.findall(
        r"^\| `(meshd_\w+)` \| (\w+) \| ([^|]+) \| (.+) \|$",
        (PROTOCOLS / "metrics.md").read_text(),
        re.MULTILINE,
    )
    declared = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    assert rows == [
        (
            one._name,
            one._type,
            ", ".join(f"`{label}`" for label in one._labelnames) or "-",
            one._documentation,
        )
        for one in declared
    ]
    assert len(declared) == len(list(metrics.REGISTRY.collect()))


def test_the_readme_names_everything_that_is_here() -> None:
    text = (PROTOCOLS / "README.md").read_text()
    named = set(re.findall(r"\]\(([^)]+)\)", text))
    for path in PROTOCOLS.iterdir():
        name = path.name + "/" if path.is_dir() else path.name
        is_named = any(one.startswith(name) for one in named)
        assert is_named or name == "README.md", name
    assert all((PROTOCOLS / one).exists() for one in named)
