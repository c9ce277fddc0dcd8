"""What a policy may say, and the words for what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.model.errors import RejectedError
from meshd.model.ids import PolicyKey
from meshd.model.policy import (
    Direction,
    Expression,
    LabelSelector,
    NamespaceSelector,
    Operator,
    Policy,
    namespace_labels_of,
    namespace_of,
)
from meshd.model.schema import from_data, to_data

WHOLE: dict[str, Any] = {
    "subjects": {
        "labels": {"app": "web"},
        "expressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
    },
    "directions": ["egress", "ingress"],
    "ingress": [
        {
            "peers": [
                {
                    "labels": {"labels": {"app": "cart"}},
                    "namespaces": {"names": ["shop"], "labels": {"team": "a"}},
                    "clusters": {"not_clusters": ["south"]},
                },
                {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]},
            ],
            "ports": [{"port": 80, "end_port": 90}, {"protocol": "UDP", "name": "dns"}],
            "http": [{"methods": ["GET"], "path": "/api", "match": "exact"}],
        }
    ],
    "egress": [{"peers": [{"dns": "*.example.org"}, {"dns": "example.org"}]}],
    "labels": {"a": "b"},
    "audiences": ["eu", "mesh"],
    "source": "git",
}


def test_what_was_written_is_read_as_the_same() -> None:
    policy = from_data(Policy, WHOLE, "")
    assert to_data(policy) == WHOLE
    assert policy.rules(Direction.INGRESS) == policy.ingress
    assert policy.rules(Direction.EGRESS) == policy.egress
    assert to_data(Policy()) == {}


def ingress(**rule: object) -> dict[str, object]:
    return {"ingress": [rule]}


def peer(**fields: object) -> dict[str, object]:
    return ingress(peers=[fields])


def port(**fields: object) -> dict[str, object]:
    return ingress(ports=[fields])


def subjects(**expression: object) -> dict[str, object]:
    return {"subjects": {"expressions": [expression]}}


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (peer(), "ingress[0].peers[0]: is not one kind of peer"),
        (peer(labels={}, cidr="10.0.0.0/8"), "is not one kind of peer"),
        (peer(namespaces={}, dns="a.example"), "is not one kind of peer"),
        (peer(labels={}, **{"except": ["10.0.0.0/8"]}), "has except without a cidr"),
        (peer(cidr="10.0.0.0/8", **{"except": ["11.0.0.0/8"]}), "which is not within 10.0.0.0/8"),
        (peer(cidr="10.0.0.0/8", **{"except": ["0.0.0.0/0"]}), "which is not within 10.0.0.0/8"),
        (peer(cidr="10.0.0.0/8", **{"except": ["fd00::/8"]}), "which is not within 10.0.0.0/8"),
        (peer(cidr="10.0.0.1/8"), "has host bits set"),
        (peer(dns="*"), "is not a DNS name"),
        (peer(dns="a.*.example"), "is not a DNS name"),
        (peer(dns="example.org"), "names are for egress"),
        (peer(namespaces={"names": ["A"]}), "is not a DNS label"),
        (peer(clusters={"clusters": ["East"]}), "is not a cluster name"),
        (port(port=0), "greater than or equal to 1"),
        (port(port=80, name="http"), "has a port and a name"),
        (port(port=80, end_port=79), "has an end_port that is not behind its port"),
        (port(end_port=79), "has an end_port that is not behind its port"),
        (port(name="Http"), "is not a port's name"),
        (port(protocol="ICMP"), "'TCP', 'UDP' or 'SCTP'"),
        (ingress(http=[{"methods": ["get"]}]), "is not an HTTP method in capital letters"),
        (ingress(http=[{"path": "api"}]), "begin it with a slash"),
        (ingress(http=[{}], ports=[{"protocol": "SCTP"}]), "has HTTP on SCTP"),
        ({"egress": [{}]}, "has egress rules, but its directions don't have egress"),
        ({"directions": ["egress"], "ingress": [{}]}, "don't have ingress"),
        ({"directions": []}, "at least 1 item"),
        (subjects(key="a", operator="In"), "has no values, which In needs"),
        (subjects(key="a", operator="Exists", values=["b"]), "has values, which Exists takes none"),
        (subjects(key="", operator="Exists"), "at least 1 character"),
        ({"ingress": [{}] * 129}, "at most 128 items"),
        ({"colour": "red"}, "unknown field"),
    ],
)
def test_what_a_policy_may_not_say(data: dict[str, object], part: str) -> None:
    with pytest.raises(RejectedError) as caught:
        from_data(Policy, data, "")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "values", "of_a", "of_b", "of_none"),
    [
        (Operator.IN, ("a", "c"), True, False, False),
        (Operator.NOT_IN, ("a", "c"), False, True, True),
        (Operator.EXISTS, (), True, True, False),
        (Operator.DOES_NOT_EXIST, (), False, False, True),
    ],
)
def test_expressions_are_those_of_kubernetes(
    operator: Operator, values: tuple[str, ...], *, of_a: bool, of_b: bool, of_none: bool
) -> None:
    one = Expression(key="k", operator=operator, values=values)
    assert [one.holds(labels) for labels in ({"k": "a"}, {"k": "b"}, {"x": "a"})] == [
        *(of_a, of_b, of_none)
    ]
    selector = LabelSelector(labels={"x": "y"}, expressions=(one,))
    assert selector.selects({"k": "a", "x": "y"}) is of_a
    assert not selector.selects({"k": "a"})


def test_a_namespace_is_known_by_its_identities_labels() -> None:
    labels = {"app": "web", "meshd.io/namespace": "shop", "meshd.io/namespace.team": "a"}
    assert namespace_of(labels) == "shop"
    its = namespace_labels_of(labels)
    assert its == {"team": "a", "kubernetes.io/metadata.name": "shop"}
    assert namespace_of({"app": "web"}) == ""
    assert NamespaceSelector().selects("shop", its)
    assert NamespaceSelector(names=("shop",), labels={"team": "a"}).selects("shop", its)
    assert not NamespaceSelector(names=("card",)).selects("shop", its)
    assert not NamespaceSelector(labels={"team": "b"}).selects("shop", its)


@pytest.mark.parametrize("text", ["shop/web", "shop/web.v1"])
def test_a_policys_name_may_have_dots(text: str) -> None:
    assert str(PolicyKey.parse(text)) == text


@pytest.mark.parametrize("text", ["web", "sh.op/web", "shop/", "shop/Web", "shop/a/b", ""])
def test_what_is_no_policys_name(text: str) -> None:
    with pytest.raises(RejectedError, match="write namespace/name"):
        PolicyKey.parse(text)
