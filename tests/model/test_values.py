"""What a value may say, kind by kind, and the words for what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.model.cluster import ClusterInfo, ClusterSelector
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.forms import network_of, overlap_of
from meshd.model.identity import (
    Identity,
    cluster_id_of,
    identity_number,
    parse_identity,
)
from meshd.model.ids import ClusterName
from meshd.model.node import Node
from meshd.model.schema import Value, all_data, from_data, to_data
from meshd.model.service import Export, Service, Tier

NODE = {"addresses": ["10.0.0.1"]}
EAST, WEST = ClusterName("east"), ClusterName("west")


@pytest.mark.parametrize(
    ("kind", "data", "part"),
    [
        (Service, {"tiers": [{"clusters": []}]}, "at least 1 item"),
        (
            Service,
            {"tiers": [{"clusters": ["east"]}, {"clusters": ["west", "east"]}]},
            "east is in",
        ),
        (Service, {"tiers": [{"clusters": ["@remote"]}]}, "not the name of a cluster, @local or *"),
        (Service, {"tiers": [{"clusters": ["*"], "percent": 0}]}, "greater than or equal to 1"),
        (Service, {"tiers": [{"clusters": ["*"], "percent": 101}]}, "less than or equal to 100"),
        (Service, {"tiers": [{"clusters": [f"c{n}"]} for n in range(33)]}, "at most 32 items"),
        (Service, {"spill": {"below_percent": -1}}, "greater than or equal to 0"),
        (Service, {"spill": {"amount": "some"}}, "'proportional' or 'all'"),
        (Service, {"staleness": {"stale_after_s": 0.5}}, "greater than or equal to 1"),
        (Service, {"weight": 1001}, "less than or equal to 1000"),
        (Service, {"session_timeout_s": 86_401}, "less than or equal to 86400"),
        (Service, {"export": {"audiences": []}}, "at least 1 item"),
        (Service, {"export": {"audiences": ["eu", "eu"]}}, "eu is named twice"),
        (Service, {"export": {"audiences": ["E U"]}}, "is not a DNS label"),
        (Service, {"import": {"clusters": ["Nowhere"]}}, "is not a cluster name"),
        (Service, {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, "same number"),
        (ClusterInfo, {"name": "a", "id": 1, "state": "off"}, "'active', 'draining' or"),
        (ClusterInfo, {"name": "a", "id": 1, "announces": ["10.0.0.1/8"]}, "has host bits set"),
        (ClusterInfo, {"name": "a", "id": 1, "announces": ["here"]}, "is not an address range"),
        (
            ClusterInfo,
            {"name": "a", "id": 1, "announces": ["10.0.0.0/8", "fd00::/8", "10.1.0.0/16"]},
            "10.0.0.0/8 and 10.1.0.0/16 overlap; keep one of them",
        ),
        (Node, {"addresses": []}, "at least 1 item"),
        (Node, {"addresses": ["10.0.0.1", "10.0.0.1"]}, "two addresses are the same"),
        (Node, NODE | {"tunnel_endpoint": "10.0.0.1"}, "is not address:port"),
        (Node, NODE | {"tunnel_endpoint": "10.0.0.1:65536"}, "is not address:port"),
        (Node, NODE | {"tunnel_endpoint": "10.0.0.1:0"}, "is not address:port"),
        (Node, NODE | {"tunnel_endpoint": "fd00::1:51820"}, "is not address:port"),
        (Node, NODE | {"tunnel_endpoint": "[10.0.0.300]:1"}, "is not an IPv4 or IPv6 address"),
        (Identity, {"labels": {}}, "an identity is a set of labels"),
    ],
)
def test_what_can_only_be_wrong_is_refused_in_words(
    kind: type[Any], data: dict[str, object], part: str
) -> None:
    with pytest.raises(RejectedError) as error:
        from_data(kind, data, "body")
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (
            Service(tiers=(Tier(clusters=("@local", "b"), percent=90), Tier(clusters=("*",)))),
            {"tiers": [{"clusters": ["@local", "b"], "percent": 90}, {"clusters": ["*"]}]},
        ),
        (
            Service(export=Export(audiences=("eu", "hub"))),
            {"export": {"audiences": ["eu", "hub"]}},
        ),
        (
            Service(import_from=ClusterSelector(not_clusters=(EAST,), labels={"a": "b"})),
            {"import": {"not_clusters": ["east"], "labels": {"a": "b"}}},
        ),
        (Endpoint(address="fd00::1", region="eu"), {"address": "fd00::1", "region": "eu"}),
        (
            Node(addresses=("10.0.0.1",), pod_cidrs=("10.1.0.0/24",), tunnel_endpoint="[::1]:1"),
            {
                "addresses": ["10.0.0.1"],
                "pod_cidrs": ["10.1.0.0/24"],
                "tunnel_endpoint": "[::1]:1",
            },
        ),
        (Identity(labels={"app": "web"}), {"labels": {"app": "web"}}),
    ],
)
def test_a_value_is_told_in_few_words_and_read_back(value: Value, data: dict[str, object]) -> None:
    assert to_data(value) == data
    kind: Any = type(value)
    assert from_data(kind, data, "") == value


def test_equal_things_have_one_spelling() -> None:
    node = from_data(Node, {"addresses": ["FD00::1"], "tunnel_endpoint": "[FD00:0::1]:51820"}, "")
    assert (node.addresses, node.tunnel_endpoint) == (("fd00::1",), "[fd00::1]:51820")
    assert from_data(Node, NODE | {"tunnel_endpoint": "10.0.0.1:1"}, "").tunnel_endpoint
    assert from_data(Node, NODE | {"tunnel_endpoint": ""}, "").tunnel_endpoint == ""
    assert all_data(Identity(labels={"a": "b"}))["audiences"] == ["mesh"]
    info = from_data(ClusterInfo, {"name": "a", "id": 1, "announces": ["FD00::/16"]}, "")
    assert info.announces == ("fd00::/16",)
    export = from_data(Service, {"export": {"audiences": ["mesh", "eu"]}}, "").export
    assert export.audiences == ("eu", "mesh")


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ((), None),
        (("10.0.0.0/24", "10.0.1.0/24", "fd00::/8"), None),
        (("10.2.0.0/16", "10.1.0.0/16", "10.0.0.0/8"), ("10.0.0.0/8", "10.1.0.0/16")),
        (("10.0.0.0/24", "10.0.0.0/24"), ("10.0.0.0/24", "10.0.0.0/24")),
        (("0.0.0.0/0", "::/0"), None),
    ],
)
def test_ranges_that_overlap(ranges: tuple[str, ...], expected: tuple[str, str] | None) -> None:
    found = overlap_of(map(network_of, ranges))
    assert (None if found is None else tuple(map(str, found))) == expected


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        (ClusterSelector(), {"east", "west"}),
        (ClusterSelector(clusters=(EAST,)), {"east"}),
        (ClusterSelector(not_clusters=(EAST,)), {"west"}),
        (ClusterSelector(regions=("eu", "us")), {"east"}),
        (ClusterSelector(labels={"tier": "gold"}), {"east"}),
        (ClusterSelector(labels={"tier": "lead"}), set()),
        (ClusterSelector(clusters=(EAST, WEST), labels={"tier": "gold"}), {"east"}),
    ],
)
def test_a_selector_selects_who_fulfils_all_of_it(
    selector: ClusterSelector, selected: set[str]
) -> None:
    """West hasn't said anything of itself yet."""
    east = ClusterInfo(name="east", id=1, region="eu", labels={"tier": "gold", "x": "y"})
    found = {name for name, info in ((EAST, east), (WEST, None)) if selector.selects(name, info)}
    assert found == selected


def test_which_clusters_a_definition_names() -> None:
    service = Service(
        tiers=(Tier(clusters=("@local", "a")), Tier(clusters=("*",))),
        export=Export(clusters=ClusterSelector(clusters=(EAST,))),
        import_from=ClusterSelector(not_clusters=(WEST,)),
    )
    assert service.named_clusters() == {"a", "east", "west"}
    assert service.is_offered_to("mesh") is False
    assert Service(is_global=True).is_offered_to("mesh")
    assert not Service(is_global=True).is_offered_to("eu")


def test_the_number_of_an_identity_carries_its_cluster() -> None:
    number = identity_number(7, 256)
    assert (number, cluster_id_of(number), parse_identity(str(number))) == (458_960 + 48, 7, number)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "255", "65791", "065792", "33554432", "9" * 40, "٣"]
)
def test_what_is_no_number_of_an_identity(text: str) -> None:
    with pytest.raises(RejectedError, match="cluster id \\* 65536"):
        parse_identity(text)
