"""The values inside events: their limits, one by one, as every way into a log applies them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.forms import LABELS_MAX, TIME_MS_MAX, WEIGHT_DEFAULT
from meshd.model.schema import from_data, to_data
from meshd.model.service import PORTS_MAX, Affinity, Port, Service, Transport
from tests.logs import endpoints, infos, services

Value = Service | Endpoint | ClusterInfo


def read(kind: Any, data: object) -> object:
    return from_data(kind, data, "")


@given(st.one_of(services, endpoints, infos))
def test_a_value_is_its_plain_data(value: Value) -> None:
    assert read(type(value), to_data(value)) == value


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (Service(), {}),
        (Service(is_global=True, is_shared=False), {"global": True, "shared": False}),
        (Service(affinity=Affinity.LOCAL), {"affinity": "local"}),
        (
            Service(ports=(Port(53, "dns", Transport.UDP),)),
            {"ports": [{"port": 53, "name": "dns", "protocol": "UDP"}]},
        ),
        (Endpoint(address="10.0.0.1"), {"address": "10.0.0.1"}),
        (Endpoint(address="10.0.0.1", weight=0), {"address": "10.0.0.1", "weight": 0}),
        (ClusterInfo(name="west", id=7), {"name": "west", "id": 7}),
    ],
)
def test_defaults_are_left_out_so_they_may_never_change(
    value: Value, data: dict[str, object]
) -> None:
    assert to_data(value) == data
    assert read(type(value), data) == value


def test_the_defaults() -> None:
    endpoint = from_data(Endpoint, {"address": "10.0.0.1"}, "")
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (True, None, False)
    assert endpoint.weight == WEIGHT_DEFAULT == 100
    assert from_data(Service, {}, "").affinity is Affinity.NONE


@pytest.mark.parametrize(
    ("is_global", "is_shared", "is_offered"),
    [
        (False, None, False),
        (False, True, False),
        (False, False, False),
        (True, None, True),
        (True, True, True),
        (True, False, False),
    ],
)
def test_what_is_offered(*, is_global: bool, is_shared: bool | None, is_offered: bool) -> None:
    assert Service(is_global=is_global, is_shared=is_shared).is_offered is is_offered


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("2001:DB8:0:0::0001", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:a00:1", "10.0.0.1"),
    ],
)
def test_one_host_has_one_spelling(written: str, kept: str) -> None:
    endpoint = from_data(Endpoint, {"address": written}, "")
    assert endpoint.address == kept
    assert to_data(endpoint) == {"address": kept}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "is not an IPv4 or IPv6 address"),
        ("web.shop", "is not an IPv4 or IPv6 address"),
        ("10.0.0.256", "is not an IPv4 or IPv6 address"),
        ("010.0.0.1", "is not an IPv4 or IPv6 address"),
        ("10.0.0.0/8", "is not an IPv4 or IPv6 address"),
        ("0.0.0.0", "is not the address of one host"),
        ("::", "is not the address of one host"),
        ("::ffff:0.0.0.0", "is not the address of one host"),
        ("224.0.0.1", "is not the address of one host"),
        ("ff02::1", "is not the address of one host"),
        ("::ffff:224.0.0.1", "is not the address of one host"),
        ("fe80::1%eth0", "is not the address of one host"),
        ("1" * 46, "string should have at most 45 characters"),
    ],
)
def test_what_is_no_address(address: str, said: str) -> None:
    with pytest.raises(RejectedError, match=f"^address: {said}"):
        from_data(Endpoint, {"address": address}, "")


MANY_PORTS = [{"port": 1, "name": f"p{number}"} for number in range(PORTS_MAX + 1)]
MANY_LABELS = {f"l{number}": "" for number in range(LABELS_MAX + 1)}


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("ports", [{"port": 0}], "ports[0].port"),
        ("ports", [{"port": 65536}], "ports[0].port"),
        ("ports", [{"port": "80"}], "ports[0].port"),
        ("ports", [{"port": 80.0}], "ports[0].port"),
        ("ports", [{"port": True}], "ports[0].port"),
        ("ports", [{}], "ports[0].port"),
        ("ports", [{"port": 80, "name": "Web"}], "ports[0].name"),
        ("ports", [{"port": 80, "name": "web\n"}], "ports[0].name"),
        ("ports", [{"port": 80, "protocol": "tcp"}], "ports[0].protocol"),
        ("ports", [{"port": 80, "app_protocol": "h 2"}], "ports[0].app_protocol"),
        ("ports", [{"port": 80}, {"port": 81}], "ports"),
        ("ports", MANY_PORTS, "ports"),
        ("ports", {"port": 80}, "ports"),
        ("global", "yes", "global"),
        ("global", 1, "global"),
        ("shared", 0, "shared"),
        ("affinity", "nearest", "affinity"),
        ("labels", {"a": 1}, "labels.a"),
        ("labels", {"a": "\x00"}, "labels.a"),
        ("labels", {"a": "x" * 254}, "labels.a"),
        ("labels", {"x" * 254: ""}, "labels."),
        ("labels", MANY_LABELS, "labels"),
        ("source", "a\nb", "source"),
        ("source", "\ud800", "source"),
        ("created_ms", -1, "created_ms"),
        ("created_ms", TIME_MS_MAX + 1, "created_ms"),
        ("created_ms", 1.5, "created_ms"),
    ],
)
def test_a_service_with_one_wrong_field(field: str, value: object, where: str) -> None:
    with pytest.raises(RejectedError) as error:
        from_data(Service, {field: value}, "")
    (problem,) = error.value.problems
    assert problem.where.startswith(where)


@pytest.mark.parametrize(
    ("kind", "data", "where"),
    [
        (Endpoint, {"address": "10.0.0.1", "weight": -1}, "weight"),
        (Endpoint, {"address": "10.0.0.1", "weight": 1001}, "weight"),
        (Endpoint, {"address": "10.0.0.1", "weight": 2**63}, "weight"),
        (Endpoint, {"address": "10.0.0.1", "weight": True}, "weight"),
        (Endpoint, {"address": "10.0.0.1", "ready": "true"}, "ready"),
        (Endpoint, {"address": "10.0.0.1", "zone": "a b"}, "zone"),
        (Endpoint, {"address": "10.0.0.1", "node": "n" * 254}, "node"),
        (Endpoint, {}, "address"),
        (ClusterInfo, {"name": "West", "id": 7}, "name"),
        (ClusterInfo, {"name": "west", "id": 0}, "id"),
        (ClusterInfo, {"name": "west", "id": 512}, "id"),
        (ClusterInfo, {"name": "west", "id": True}, "id"),
        (ClusterInfo, {"name": "west"}, "id"),
    ],
)
def test_a_value_with_one_wrong_field(
    kind: type[Endpoint | ClusterInfo], data: dict[str, object], where: str
) -> None:
    with pytest.raises(RejectedError) as error:
        read(kind, data)
    assert [problem.where for problem in error.value.problems] == [where]


@pytest.mark.parametrize(
    "value",
    [
        Service(
            ports=tuple(Port(65535 - number, f"p{number}") for number in range(PORTS_MAX)),
            labels={f"l{number}": "x" * 253 for number in range(LABELS_MAX)},
            created_ms=TIME_MS_MAX,
        ),
        Endpoint(address="10.0.0.1", weight=1000, zone="z" * 63, source="s" * 512),
        ClusterInfo(name="a" * 32, id=511),
    ],
)
def test_every_limit_can_be_reached(value: Value) -> None:
    assert read(type(value), to_data(value)) == value


def test_values_are_compared_as_wholes() -> None:
    service = Service(labels={"a": "b"})
    assert service == Service(labels={"a": "b"})
    assert service != replace(service, source="x")
