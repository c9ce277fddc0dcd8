"""Peers through REST: listed, removed, and passed over where nobody can fold them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd.model.ids import ClusterName
from meshd.model.peer import Phase
from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh, Running, endpoint, service

NORTH = {"endpoints": ["north:2379"]}
QUICK = ("replication.heartbeat_every_s=0.1", "replication.slow_retry_s=1")


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Served, Running]]:
    """East, which follows west by its settings."""
    mesh = Mesh(("east", "west"), overrides=QUICK)
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:
        yield east, west


async def test_a_peer_is_listed_changed_and_removed(east: Served) -> None:
    put = await east.ask("PUT", "/v1/peers/north", NORTH, Meshd_Actor="ann")
    assert (put.status, put.json["events"]) == (200, 1)
    same = await east.ask("PUT", "/v1/peers/north", NORTH | {"name": "north"})
    assert (same.status, same.json["events"]) == (200, 0)
    (told,) = (await east.get("/v1/events?type=peer.set"))["items"]
    assert (told["subject"], told["meshdactor"], told["data"]) == ("north", "ann", NORTH)
    await east.meshd.until(lambda: ClusterName("north") in east.node.peers.names())
    shown = await east.get("/v1/peers/north")
    assert (shown["source"], shown["endpoints"]) == ("log", ["north:2379"])
    assert (shown["skipped"], shown["quarantined_seq"]) == ([], None)
    assert [one["name"] for one in (await east.get("/v1/clusters"))["items"]] == ["east", "north"]
    gone = await east.ask("DELETE", "/v1/peers/north")
    assert (gone.status, gone.json["events"]) == (200, 1)
    again = await east.ask("DELETE", "/v1/peers/north")
    assert (again.status, again.slug) == (404, "not-found")
    await east.meshd.until(lambda: not east.node.peers.names())


async def test_a_write_with_the_same_key_is_done_once(east: Served) -> None:
    for method, body in (("PUT", NORTH), ("DELETE", None)):
        first, second = [
            await east.ask(method, "/v1/peers/north", body, Idempotency_Key=method)
            for _ in range(2)
        ]
        assert (first.json["repeated"], second.json["repeated"]) == (False, True)
        assert first.json["last_seq"] == second.json["last_seq"]


async def test_all_that_is_wrong_with_a_peer_is_told_at_once(east: Served, tmp_path: Path) -> None:
    await east.ask("PUT", "/v1/peers/north", NORTH)
    missing = str(tmp_path / "missing")
    bad = {
        "endpoints": ["127.0.0.1:2379", "north:2379"],
        "tls": {"ca_file": missing, "cert_file": missing},
        "password_file": missing,
        "staleness": {"policy": "withdraw", "stale_after_s": 100.0, "withdraw_after_s": 5.0},
    }
    answer = await east.ask("PUT", "/v1/peers/south", bad)
    assert (answer.status, answer.slug) == (422, "invalid")
    said = {one["where"]: one["what"] for one in answer.json["problems"]}
    assert said == {
        "endpoints[0]": "127.0.0.1:2379 belongs to this cluster's etcd already",
        "endpoints[1]": "north:2379 belongs to peer north already",
        # Whether such a file is there is nobody's business as long as none may be named.
        "tls.cert_file": "is a file, and a peer in the log may name none on this host",
        "tls.ca_file": "is a file, and a peer in the log may name none on this host",
        "password_file": "is a file, and a peer in the log may name none on this host",
        "username": "is missing beside a password",
        "staleness.withdraw_after_s": "is before stale_after_s, 100",
    }


@pytest.mark.parametrize(
    ("name", "body", "where"),
    [
        ("south", {}, "endpoints"),
        ("south", NORTH | {"colour": "red"}, "colour"),
        ("south", NORTH | {"name": "north"}, "name"),
        ("south", {"endpoints": ["north:0"]}, "endpoints[0]"),
        ("South", NORTH, "cluster"),
        ("east", NORTH, "name"),
    ],
)
async def test_what_is_no_peer_is_refused(
    east: Served, name: str, body: object, where: str
) -> None:
    answer = await east.ask("PUT", f"/v1/peers/{name}", body)
    assert (answer.status, answer.slug) == (422, "invalid")
    assert answer.json["problems"][0]["where"] == where
    assert (await east.get("/v1/peers"))["items"] == []


async def test_a_peer_of_the_settings_is_not_changed_from_afar(
    pair: tuple[Served, Running],
) -> None:
    east, _ = pair
    for method, body in (("PUT", {"endpoints": ["elsewhere:2379"]}), ("DELETE", None)):
        answer = await east.ask(method, "/v1/peers/west", body)
        assert (answer.status, answer.slug) == (409, "conflict")
        assert "change the settings file and reload" in answer.json["detail"]
    assert (await east.get("/v1/peers/west"))["source"] == "settings"


async def test_a_person_passes_over_the_record_that_they_saw(pair: tuple[Served, Running]) -> None:
    east, west = pair
    await east.meshd.submit(service())
    await west.submit(service(), endpoint("shop/web/a", "10.0.0.1"))
    await east.meshd.until_count("shop/web", 1)
    early = await east.ask("POST", "/v1/peers/west/skip")
    assert (early.status, early.slug) == (409, "conflict")
    await west.submit(endpoint("shop/web/bad", "127.0.0.1"))
    await west.submit(endpoint("shop/web/b", "10.0.0.2"))
    await east.meshd.until(lambda: east.meshd.phase("west") is Phase.QUARANTINED)
    seq = (await east.get("/v1/peers/west"))["quarantined_seq"]
    other = await east.ask("POST", "/v1/peers/west/skip", {"seq": seq + 1})
    assert (other.status, other.slug) == (409, "conflict")
    assert f"Quarantined at seq {seq}" in other.json["detail"]
    done = await east.ask("POST", "/v1/peers/west/skip", {"seq": seq}, Idempotency_Key="k")
    assert (done.status, done.json["events"]) == (200, 1)
    await east.meshd.until_count("shop/web", 2)
    # The answer was lost, and the request comes again.
    again = await east.ask("POST", "/v1/peers/west/skip", {"seq": seq}, Idempotency_Key="k")
    assert (again.status, again.json["repeated"]) == (200, True)
    shown = await east.get("/v1/peers/west")
    assert (shown["skipped"], shown["quarantined_seq"]) == ([seq], None)


@pytest.mark.parametrize("body", [{"seq": "7"}, {"seq": 0}, {"seq": True}, {"sequence": 7}])
async def test_a_skip_says_a_seq_or_nothing(east: Served, body: object) -> None:
    answer = await east.ask("POST", "/v1/peers/north/skip", body)
    assert (answer.status, answer.slug) == (400, "bad-request")


async def test_nothing_is_passed_over_of_a_peer_that_is_not_followed(east: Served) -> None:
    answer = await east.ask("POST", "/v1/peers/north/skip", {})
    assert (answer.status, answer.slug) == (404, "not-found")


async def test_files_may_be_held_to_one_folder(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("secret")
    folder = f"replication.listed_files_dir={tmp_path / 'peers'}"
    async with serve_cluster("east", mesh=Mesh(("east",), overrides=(folder,))) as east:
        body = NORTH | {"username": "u", "password_file": str(secret)}
        answer = await east.ask("PUT", "/v1/peers/north", body)
        assert (answer.status, answer.slug) == (422, "invalid")
        assert answer.json["problems"][0]["where"] == "password_file"
