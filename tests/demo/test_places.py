"""Addresses: free ones, and nobody else's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from meshd.demo import places
from meshd.demo.places import REST_PORT, claim_places
from meshd.model.errors import FatalError

CLUSTERS = ("one", "two")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases that no demo on this machine uses."""
    monkeypatch.setattr(places, "BASES", range(200, 203))


@pytest.fixture
def listen() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def take(stack: ExitStack, address: str, port: int) -> None:
    held = stack.enter_context(socket.socket())
    held.bind((address, port))
    held.listen()


def test_every_cluster_has_addresses_of_its_own() -> None:
    with claim_places(CLUSTERS) as found:
        assert found["one"].url == "http://127.0.200.1:7979"
        assert found["two"].etcd == "127.0.200.2:2379"
        assert found["one"].raft == "127.0.200.1:2380"
        assert found["two"].endpoint_address(11) == "127.200.2.11"


def test_two_demos_never_share_an_address() -> None:
    with claim_places(CLUSTERS) as first, claim_places(CLUSTERS) as second:
        assert first["one"].base != second["one"].base


def test_addresses_are_given_back() -> None:
    with claim_places(CLUSTERS) as first:
        pass
    with claim_places(CLUSTERS) as second:
        assert first == second


def test_a_taken_port_moves_all_clusters(listen: ExitStack) -> None:
    take(listen, "127.0.200.2", REST_PORT)
    with claim_places(CLUSTERS) as found:
        assert {place.base for place in found.values()} == {201}


def test_who_listens_on_every_address_moves_the_ports(listen: ExitStack) -> None:
    for base in places.BASES:
        take(listen, f"127.0.{base}.1", REST_PORT)
    with claim_places(CLUSTERS) as found:
        assert found["one"].url == "http://127.0.200.1:17979"
        assert found["one"].port(REST_PORT) == 17979


def test_without_free_addresses_it_says_so(
    listen: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "PORT_SHIFTS", (0,))
    for base in places.BASES:
        take(listen, f"127.0.{base}.1", REST_PORT)
    with pytest.raises(FatalError, match="no free addresses"), claim_places(CLUSTERS):
        pass
