"""Whom a question about policies means, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.core.judge import Inside, Outside, Verdict
from meshd.core.parties import Answer, Questions, identities_in, parse_party
from meshd.core.policies import policies_of
from meshd.model.errors import RejectedError
from meshd.model.identity import identity_number
from meshd.model.ids import ClusterName
from meshd.model.service import Transport
from tests.core.test_judge import A, B, identity, ours, state_of
from tests.network_policies import Pod, Yaml

SHOP = "meshd.io/namespace"


def pod(**labels: str) -> Yaml:
    return identity(Pod(A, "shop", tuple(labels.items())))


def service(name: str, ports: list[Yaml], selector: dict[str, str] | None = None) -> Yaml:
    metadata = {"namespace": "shop", "name": name}
    spec: dict[str, Any] = {"ports": ports, "selector": selector or {}}
    return {"apiVersion": "meshd.io/v1", "kind": "Service", "metadata": metadata, "spec": spec}


def endpoints(name: str, *ports: int) -> Yaml:
    listed = [
        {"address": f"10.0.0.{number}", "ports": [{"name": "http", "port": port}]}
        for number, port in enumerate(ports, 1)
    ]
    metadata = {"namespace": "shop", "name": name}
    return {
        "apiVersion": "meshd.io/v1",
        "kind": "Endpoints",
        "metadata": metadata,
        "spec": {"endpoints": listed},
    }


HTTP = [{"name": "http", "port": 80}]
DOCUMENTS = [
    pod(app="web", tier="front"),
    pod(app="db"),
    pod(app="many", version="1"),
    pod(app="many", version="2"),
    pod(**{"k8s-app": "dns"}),
    service("front", HTTP, {"tier": "front"}),
    service("db", [{"port": 5432}, {"port": 9, "protocol": "UDP", "name": "u"}]),
    service("ghost", HTTP, {"app": "ghost"}),
    service("web", HTTP),
    endpoints("web", 8080, 8080),
    service("same", HTTP, {"app": "db"}),
    endpoints("same", 80),
    service("many", HTTP, {"app": "many"}),
    endpoints("many", 8080, 8081),
]
NO_NAMESPACE = {
    "apiVersion": "meshd.io/v1",
    "kind": "Identity",
    "metadata": {"name": "x"},
    "spec": {"labels": {"app": "vm"}},
}
STATES = {
    A: state_of(A, 1, [*DOCUMENTS, NO_NAMESPACE]),
    B: state_of(B, 2, [pod(app="web")]),
}
QUESTIONS = Questions(policies_of(STATES), STATES, A)
FIRST = identity_number(1, 256)


def ask(source: str, destination: str, protocol: Transport = Transport.TCP) -> Answer:
    ends = parse_party(source, "from"), parse_party(destination, "to")
    return QUESTIONS.ask(*ends, protocol)


def refused(source: str, destination: str, protocol: Transport = Transport.TCP) -> str:
    with pytest.raises(RejectedError) as caught:
        ask(source, destination, protocol)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        # A service by its selector; a workload by the labels that name it.
        ("shop/front@a", {"app": "web", "tier": "front"}),
        ("shop/front", {"app": "web", "tier": "front"}),
        ("shop/db@a", {"app": "db"}),
        ("shop/dns@a", {"k8s-app": "dns"}),
        ("shop/web@b", {"app": "web"}),
        ("shop/app=web,tier=front@a", {"app": "web", "tier": "front"}),
        (str(FIRST), {"app": "web", "tier": "front"}),
    ],
)
def test_who_is_meant(text: str, labels: dict[str, str]) -> None:
    (party,) = ask(text, "192.0.2.1:443").sources
    assert isinstance(party, Inside)
    assert party.labels == {**labels, SHOP: "shop"}
    assert party.number is not None


@pytest.mark.parametrize(
    ("text", "outside", "port"),
    [
        ("192.0.2.1:443", Outside(address="192.0.2.1"), 443),
        ("[2001:DB8::1]:443", Outside(address="2001:db8::1"), 443),
        ("example.org:443", Outside(name="example.org"), 443),
        (f"{FIRST}:443", None, 443),
        ("shop/app=web@b:443", None, 443),
    ],
)
def test_ports_and_the_outside(text: str, outside: Outside | None, port: int) -> None:
    answer = ask("shop/db", text)
    assert answer.port.number == port
    if outside is not None:
        assert answer.destinations == (outside,)
    assert ask("2001:db8::1", "shop/db:5432").sources == (Outside(address="2001:db8::1"),)


@pytest.mark.parametrize(
    ("text", "protocol", "number", "notes"),
    [
        ("shop/web:80", "TCP", 8080, ["port 80 of shop/web is 8080 of its endpoints"]),
        ("shop/web:http", "TCP", 8080, ["port 80 of shop/web is 8080 of its endpoints"]),
        ("shop/web", "TCP", 8080, ["port 80 of shop/web is 8080 of its endpoints"]),
        ("shop/web:8080", "TCP", 8080, []),
        ("shop/same", "TCP", 80, []),
        (
            "shop/front",
            "TCP",
            80,
            ["port 80 of shop/front is taken to be that of its endpoints as well"],
        ),
        ("shop/db:9", "UDP", 9, ["port 9 of shop/db is taken to be that of its endpoints as well"]),
        ("shop/db:9", "TCP", 9, []),
        ("shop/dns:53", "UDP", 53, []),
    ],
)
def test_a_services_port_is_where_its_endpoints_listen(
    text: str, protocol: str, number: int, notes: list[str]
) -> None:
    answer = ask("shop/db", text, Transport(protocol))
    assert (answer.port.number, list(answer.notes)) == (number, notes)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("shop/nobody:1", "'shop/nobody:1' is no service and no workload of a (there are db, dns,"),
        ("card/nobody:1", "no identity there is in that namespace"),
        ("shop/ghost:80", "is a service of app=ghost in a, and no identity there has these labels"),
        ("shop/many:80", "listens at 8080, 8081 (ask for one identity, by its number)"),
        ("shop/db", "has no port (add one behind it: 5432, 9 (u))"),
        ("shop/dns", "has no port (add a number of 1 to 65535"),
        ("shop/dns:dns", "has the port 'dns'"),
        ("shop/dns:70000", "has the port '70000'"),
        ("shop/web:https", "has no TCP port 'https' (there are 80 (http))"),
        ("66000", "is an identity of cluster id 1 that nobody here knows"),
        ("5", "is not the number of an identity"),
        ("localhost", "means nobody"),
        ("a:b:c", "means nobody"),
        ("0.0.0.0", "means nobody"),
        ("Shop/web", "means nobody"),
        ("shop/", "means nobody"),
        ("shop/web@East", "has 'East', which is no cluster"),
        ("shop/app=web,tier@a", "has 'tier', which is no label"),
    ],
)
def test_what_is_refused(destination: str, expected: str) -> None:
    found = refused("shop/db", destination)
    assert found.startswith(("to: ", "identity: "))
    assert expected in found


def test_two_that_are_outside_are_nobodys_business_here() -> None:
    assert "are both outside" in refused("192.0.2.1", "example.org:443")


def test_labels_that_nobody_has_are_asked_about_and_named() -> None:
    answer = ask("shop/app=new@a", "shop/db:5432")
    assert answer.notes[-1] == "no identity of a has the labels of shop/app=new@a"
    assert answer.sources == (Inside(A, None, {"app": "new", SHOP: "shop"}),)


def test_who_is_in_no_namespace_is_told_so() -> None:
    number = next(
        one for one, held in STATES[A].identities.items() if SHOP not in held.value.labels
    )
    answer = ask(str(number), "shop/db:5432")
    assert answer.notes[-1] == f"{number} /app=vm@a is in no namespace: no policy selects it"


def test_several_identities_are_one_answer_only_if_they_are_treated_alike() -> None:
    assert len(ask("shop/many", "shop/db:5432").sources) == 2
    only_one = ours(
        "db",
        subjects={"labels": {"app": "db"}},
        ingress=[{"peers": [{"labels": {"labels": {"version": "1"}}}]}],
    )
    states = {A: state_of(A, 1, [*DOCUMENTS, only_one])}
    questions = Questions(policies_of(states), states, A)
    ends = parse_party("shop/many", "from"), parse_party("shop/db:5432", "to")
    with pytest.raises(RejectedError) as caught:
        questions.ask(*ends, Transport.TCP)
    (problem,) = caught.value.problems
    assert problem.where == "from"
    assert (
        f"{FIRST + 2} shop/app=many,version=1@a to {FIRST + 1} shop/app=db@a: allowed"
        in problem.what
    )
    assert (
        f"{FIRST + 3} shop/app=many,version=2@a to {FIRST + 1} shop/app=db@a: denied"
        in problem.what
    )
    ends = parse_party("shop/db", "from"), parse_party("shop/app=many@a:80", "to")
    closed = ours("many", subjects={"labels": {"version": "2"}})
    states = {A: state_of(A, 1, [*DOCUMENTS, closed])}
    with pytest.raises(RejectedError) as caught:
        Questions(policies_of(states), states, A).ask(*ends, Transport.TCP)
    assert caught.value.problems[0].where == "to"


def test_one_of_several_that_may_not_leave_is_told_apart() -> None:
    closed = ours("many", subjects={"labels": {"version": "2"}}, directions=["egress"])
    states = {A: state_of(A, 1, [*DOCUMENTS, closed])}
    ends = parse_party("shop/many", "from"), parse_party("192.0.2.1:1", "to")
    with pytest.raises(RejectedError, match=r"version=2@a to 192\.0\.2\.1: denied"):
        Questions(policies_of(states), states, A).ask(*ends, Transport.TCP)


def test_too_many_identities_are_refused() -> None:
    documents = [pod(app="x", version=str(number)) for number in range(17)]
    states = {A: state_of(A, 1, documents)}
    ends = parse_party("shop/x", "from"), parse_party("192.0.2.1:1", "to")
    with pytest.raises(RejectedError, match="means 17 identities"):
        Questions(policies_of(states), states, A).ask(*ends, Transport.TCP)


@pytest.mark.parametrize(
    ("source", "destination", "sides"),
    [
        ("shop/web@z", "shop/db@a:5432", ["egress"]),
        ("shop/db@a", "shop/web@z:80", ["ingress"]),
        ("shop/web@z", "shop/web@z:80", ["egress", "ingress"]),
        # By labels both sides are judged, as far as they are known.
        ("shop/db@a", "shop/app=web@z:80", ["egress", "ingress"]),
    ],
)
def test_of_a_cluster_that_is_not_known_nothing_is_taken_for_granted(
    source: str, destination: str, sides: list[str]
) -> None:
    answer = ask(source, destination)
    assert answer.judgement.verdict is Verdict.UNKNOWN
    assert [side.direction for side in answer.judgement.sides] == sides


def test_identities_by_namespace_and_cluster() -> None:
    policies = policies_of(STATES)
    assert len(list(identities_in(policies, "", ""))) == 7
    assert len(list(identities_in(policies, "shop", ""))) == 6
    assert [one[0] for one in identities_in(policies, "shop", "b")] == [ClusterName("b")]
