"""Status, probes and metrics."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from meshd.daemon.parts import World, build, identity_of
from meshd.edges.http.app import build_app, serve_app
from meshd.edges.http.limits import Limits
from meshd.edges.memory import MemoryKv
from meshd.model.cluster import ClusterInfo
from meshd.model.command import SetCluster
from meshd.model.errors import DeniedError
from meshd.model.keyspace import Keyspace
from meshd.runtime.bootstrap import ensure_log
from tests.edges.http.served import Served, api_settings
from tests.mesh import Mesh, SeededChance


async def test_status_says_where_this_cluster_stands(east: Served) -> None:
    await east.define()
    status = await east.get("/v1/status")
    assert (status["cluster"], status["id"], status["ready"]) == ("east", 1, True)
    assert status["reasons"] == status["peers"] == []
    head = east.node.projector.local_head
    assert head is not None
    assert status["local"]["seq"] == head.local.seq == 3
    assert status["local"]["hash"] == head.local.hash.hex()
    exported = {"audience": "mesh", "written": True, "log_id": head.exports["mesh"].log_id}
    assert status["exports"] == [exported | {"seq": 3, "hash": head.exports["mesh"].hash.hex()}]
    assert status["vector"] == {"east": {"log_id": head.exports["mesh"].log_id, "seq": 3}}
    assert status["vector_text"] == f"east:{head.exports['mesh'].log_id}:3"
    assert status["events_after"] == f"east:{head.local.log_id}:3"
    assert status["digest"] == east.node.projector.tables.digest
    assert status["etcd"]["reachable"] is True
    assert status["etcd"]["db_size_bytes"] > 0
    assert status["uptime_s"] >= 0


async def test_status_shows_every_export_log_also_one_that_is_written_no_more(east: Served) -> None:
    for audiences in (("eu", "us"), ("us",)):
        await east.meshd.submit(SetCluster(ClusterInfo(name="east", id=1, audiences=audiences)))
    status = await east.get("/v1/status")
    told = [(log["audience"], log["written"], log["seq"]) for log in status["exports"]]
    assert told == [("eu", False, 1), ("mesh", True, 1), ("us", True, 1)]
    logs = [log["log"] for log in (await east.get("/v1/logs"))["items"]]
    assert logs == ["local", "export/eu", "export/mesh", "export/us"]


async def test_an_etcd_that_hangs_does_not_hold_up_the_status(
    east: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.edges.http.status.ETCD_STATUS_TIMEOUT_S", 0.01)
    east.meshd.kv.status = _hang  # type: ignore[method-assign, assignment]
    etcd = (await east.get("/v1/status"))["etcd"]
    assert etcd == {
        "reachable": False,
        "reason": "no answer within 0.01 s",
        "version": None,
        "db_size_bytes": None,
    }


async def test_an_etcd_that_tells_its_version_to_root_alone_is_reachable(east: Served) -> None:
    east.meshd.kv.status = _refuse  # type: ignore[method-assign, assignment]
    etcd = (await east.get("/v1/status"))["etcd"]
    assert etcd == {"reachable": True, "reason": "", "version": None, "db_size_bytes": None}


async def _refuse() -> None:
    raise DeniedError("etcdserver: permission denied")


async def _hang() -> None:
    await asyncio.Event().wait()


async def test_before_the_own_log_is_read_nothing_is_called_empty() -> None:
    mesh = Mesh(("east",))
    settings = mesh.settings("east")
    world = World(MemoryKv(mesh.etcds["east"]), mesh.clock, SeededChance())
    identity = identity_of(settings)
    descriptor = await ensure_log(world.kv, Keyspace(), identity, world.clock, world.chance)
    node = build(settings, descriptor, world).node
    api = api_settings()
    async with (
        serve_app(build_app(node, api, Limits()), api) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
    ):
        for path in ("/v1/services", "/v1/endpoints", "/v1/tables", "/v1/events"):
            async with client.get(path) as response:
                assert response.status == 503, path
                assert response.headers["Retry-After"] == "1"
        async with client.get("/v1/events", headers={"Accept": "text/event-stream"}) as response:
            assert response.status == 503
        async with client.put("/v1/services/a/b", json={}) as response:
            assert response.status == 503
        document = {"apiVersion": "meshd.io/v1", "kind": "Service", "metadata": {"name": "a"}}
        async with client.post("/v1/apply", json=document) as response:
            assert response.status == 503
        async with client.get("/readyz") as response:
            assert response.status == 503
            assert (await response.json())["reasons"]
        async with client.get("/livez") as response:
            assert response.status == 200
        async with client.get("/v1/status") as response:
            status = await response.json()
            assert (status["ready"], status["digest"], status["local"]) == (False, None, None)
        async with client.get("/v1/clusters/east") as response:
            assert (await response.json())["phase"] == "Syncing"


async def test_requests_are_counted_by_route_and_not_by_path(east: Served) -> None:
    for path in ("/v1/services/a/b", "/v1/services/c/d", "/made/up", "/also/made/up"):
        await east.ask("GET", path)
    await east.ask("BREW", "/v1/status")
    text = (await east.ask("GET", "/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("meshd_http_requests_total")]
    routes = {line.split('route="')[1].split('"')[0] for line in lines}
    assert "/v1/services/{namespace}/{service}" in routes
    assert "other" in routes
    assert not {route for route in routes if "made" in route or "/a/b" in route}
    assert not [line for line in lines if "BREW" in line]


async def test_metrics_know_how_many_services_are_served(east: Served) -> None:
    await east.define()
    answer = await east.ask("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "meshd_table_services 1.0" in answer.body.decode().splitlines()


async def test_the_description_of_the_interface_is_served(east: Served) -> None:
    described = await east.get("/v1/openapi.json")
    assert described["openapi"].startswith("3.1")
    assert "/v1/tables" in described["paths"]
    streams = await east.get("/v1/asyncapi.json")
    assert streams["asyncapi"].startswith("3.0")
    assert streams["channels"]["tables"]["address"] in described["paths"]


async def test_answers_do_not_say_what_they_were_made_with(east: Served) -> None:
    assert (await east.ask("GET", "/livez")).headers["Server"] == "meshd"
    assert (await east.ask("GET", "/nothing")).headers["Server"] == "meshd"
