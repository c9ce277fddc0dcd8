"""openapi.json against the routes that are served and the answers that they give."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from meshd.edges.http.app import build_app
from meshd.edges.http.contracts import contract_text
from meshd.edges.http.event_query import LAST_EVENT_ID
from meshd.edges.http.limits import Limits
from meshd.edges.http.outlets import ERROR, RESET
from meshd.edges.http.problems import KINDS
from meshd.edges.http.table_messages import BEGIN, DELTA, END, REMOVED, VALUE
from meshd.edges.http.watching import MESH, PEER, PEER_REMOVED, STATUS
from meshd.model.peer import Phase
from tests.edges.http.served import Answer, Served, api_settings, serve_cluster
from tests.mesh import Mesh, Running, endpoint, service

FILE = Path(__file__).parents[2] / "protocols/openapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text())
METHODS = ("get", "put", "post", "delete")
OPERATIONS = {
    (method.upper(), path): operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in METHODS
}


def _strict(value: Any) -> Any:
    """The same with no other fields than those that are named, so that none is undocumented."""
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _strict(item) for key, item in value.items()}
    if value.get("type") == "object" and "required" in value and "properties" in value:
        changed["additionalProperties"] = False
    return changed


BASE = "urn:openapi"
REGISTRY: Registry[Any] = Registry().with_resource(
    BASE, Resource.from_contents(_strict(DOCUMENT), default_specification=DRAFT202012)
)


def _resolve(value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found: Any = DOCUMENT
    for step in value["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def _check(method: str, pattern: str, answer: Answer) -> None:
    """Hold an answer against what is said of it."""
    responses = OPERATIONS[method, pattern]["responses"]
    assert str(answer.status) in responses, (method, pattern, answer.status, answer.body)
    content = _resolve(responses[str(answer.status)])["content"]
    media = answer.headers["Content-Type"].partition(";")[0]
    assert media in content, (method, pattern, media)
    if media.endswith("json"):
        schema = _absolute(content[media]["schema"])
        Draft202012Validator(schema, registry=REGISTRY).validate(answer.json)


def _absolute(schema: dict[str, Any]) -> dict[str, Any]:
    return {"$ref": BASE + schema["$ref"]} if "$ref" in schema else schema


def test_it_is_an_openapi_document() -> None:
    validate(DOCUMENT)


def test_it_is_in_the_package() -> None:
    assert contract_text("openapi.json") == FILE.read_bytes()


async def test_it_has_every_route_and_no_other() -> None:
    async with Mesh(("east",)).running("east") as meshd:
        app = build_app(meshd.parts.node, api_settings(), Limits())
        served = {
            (route.method, route.resource.canonical)
            for route in app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
        assert served == set(OPERATIONS)


def test_every_parameter_in_a_path_is_described_and_every_operation_has_a_name() -> None:
    for path, item in DOCUMENT["paths"].items():
        named = [_resolve(one)["name"] for one in item.get("parameters", [])]
        assert named == re.findall(r"\{(\w+)\}", path)
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)


def test_every_kind_of_problem_is_described() -> None:
    responses = DOCUMENT["components"]["responses"]
    assert set(responses) == {kind.slug for kind in KINDS}
    for kind in KINDS:
        example = responses[kind.slug]["content"]["application/problem+json"]["example"]
        assert example["status"] == kind.status


def test_the_streams_are_described_with_their_own_words() -> None:
    text = OPERATIONS["GET", "/v1/events"]["description"]
    for word in (RESET, ERROR, LAST_EVENT_ID):
        assert word in text
    tables = OPERATIONS["GET", "/v1/tables/stream"]["description"]
    for word in (RESET, ERROR, LAST_EVENT_ID, BEGIN, END, VALUE, DELTA, REMOVED):
        assert word in tables
    watch = OPERATIONS["GET", "/v1/watch"]["description"]
    for word in (LAST_EVENT_ID, MESH, PEER, PEER_REMOVED, STATUS):
        assert word in watch


async def test_the_examples_are_accepted(east: Served) -> None:
    paths = {
        "putService": "/v1/services/shop/web",
        "putEndpoint": "/v1/services/shop/web/endpoints/a",
        "apply": "/v1/apply",
        "putNode": "/v1/nodes/n1",
        "allocateIdentity": "/v1/identities",
        "putOwnCluster": "/v1/cluster",
        "putPolicy": "/v1/policies/shop/db",
        "plan": "/v1/plan",
        "putPeer": "/v1/peers/north",
        "putRegistration": "/v1/registrations/shop/web/b",
        "renewRegistrations": "/v1/registrations/renew",
        "startOperation": "/v1/operations?dry_run=true",
    }
    for (method, _), operation in OPERATIONS.items():
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            if "example" not in content:
                continue
            example = content["example"]
            body = example if isinstance(example, str) else json.dumps(example)
            if operation["operationId"] not in paths:
                # It needs an operation, or another cluster: `_ask_of_operations`.
                continue
            path = paths[operation["operationId"]]
            answer = await east.ask(method, path, body.encode(), Content_Type=media)
            assert answer.status == 200, answer.body
            if "$ref" in content["schema"]:
                schema = _absolute(content["schema"])
                Draft202012Validator(schema, registry=REGISTRY).validate(example)


@pytest.fixture
async def east() -> Any:
    async with serve_cluster() as served:
        yield served


WEB = "/v1/services/{namespace}/{service}"
ONE = WEB + "/endpoints/{endpoint}"
NAMES = {
    "namespace": "shop",
    "service": "web",
    "endpoint": "a",
    "node": "n1",
    "number": "65792",
    "policy": "db",
    "kind": "service",
    "name": "shop/web",
    "operation": "one",
}
APPLY = b"""
apiVersion: meshd.io/v1
kind: Service
metadata: {name: api}
---
apiVersion: v1
kind: Secret
metadata: {name: api}
"""


BODIES: dict[str, dict[str, Any]] = {
    "registrations/renew": {"names": ["shop/web/a"]},
    "registrations": {"endpoint": {"address": "10.0.0.1"}},
    "endpoint": {"address": "10.0.0.1"},
    "nodes": {"addresses": ["10.0.0.1"]},
    "identities": {"labels": {"a": "b"}},
    "operations": {"kind": "undrain", "subjects": ["cluster"]},
    "cluster": {"weight": 5},
    "policies": {"directions": ["egress"]},
}
"""What is sent to paths that have the word in them."""


DEFINED = {"global": True, "ports": [{"port": 80}], "shared": False, "probe": {"interval_s": 60}}
Ask = Callable[..., Awaitable[Answer]]
QUERIES = {"/v1/policy/check": "?from=shop/web@east&to=shop/app=db@east:80"}
"""What paths are asked with that need a query."""
STREAMS = {path for _, path in OPERATIONS if path.endswith(("/stream", "/watch"))}
"""What has no end. Their messages are held against streams.md."""
NO_WRITES = {"/v1/apply", "/v1/plan", "/v1/migrations"}


async def _ask_of_peers(ask: Ask, east: Served, west: Running) -> None:
    await ask("GET", "/v1/peers/{cluster}", cluster="south")
    for action in ("pause", "resume", "resync"):
        await ask("POST", f"/v1/peers/{{cluster}}/{action}", cluster="south")
    await ask("PUT", "/v1/peers/{cluster}", {"endpoints": ["north:2379"]}, cluster="north")
    await ask("DELETE", "/v1/peers/{cluster}", cluster="north")
    await ask("PUT", "/v1/peers/{cluster}", {"endpoints": ["north:2379"]})
    await ask("POST", "/v1/peers/{cluster}/skip")
    await west.submit(endpoint("shop/web/bad", "127.0.0.1"))
    await east.meshd.until(lambda: east.meshd.phase("west") is Phase.QUARANTINED)
    await ask("GET", "/v1/peers/{cluster}")
    await ask("POST", "/v1/peers/{cluster}/skip", {})


async def _ask_of_things(ask: Ask, east: Served) -> None:
    await _ask_of_registrations(ask, east)
    node = {"addresses": ["10.0.0.9"], "pod_cidrs": ["10.1.1.0/24"]}
    await ask("PUT", "/v1/cluster", {"announces": ["10.9.0.0/16"]})
    await ask("PUT", "/v1/nodes/{node}", node)
    await ask("PUT", "/v1/nodes/{node}", node, node="n2")
    await ask("DELETE", "/v1/nodes/{node}", node="n2")
    for name in ("web", "cart"):
        await ask("POST", "/v1/identities", {"labels": {"app": name}})
    await ask("DELETE", "/v1/identities/{number}", number="65793")
    rule = {"peers": [{"namespaces": {}}], "ports": [{"port": 80}], "http": [{}]}
    await ask("PUT", "/v1/policies/{namespace}/{policy}", {"ingress": [rule]})
    await ask("PUT", "/v1/policies/{namespace}/{policy}", {}, policy="other")
    await ask("DELETE", "/v1/policies/{namespace}/{policy}", policy="other")
    for app in ("web", "db"):
        labels = {"app": app, "meshd.io/namespace": "shop"}
        await ask("POST", "/v1/identities", {"labels": labels})
    checked = await ask("GET", "/v1/policy/check")
    assert [side["rule"] is None for side in checked.json["sides"]] == [True, False]
    matrix = await ask("GET", "/v1/policy/matrix")
    assert matrix.json["items"], "somebody who may talk to somebody is wanted among the examples"


async def _ask_of_registrations(ask: Ask, east: Served) -> None:
    one = "/v1/registrations/{namespace}/{service}/{endpoint}"
    said = {"endpoint": {"address": "10.0.0.7"}, "ttl_s": 60, "holder": "vm"}
    for name in ("r1", "r2"):
        await ask("PUT", one, said, endpoint=name)
        await ask("PUT", one, said | {"holder": "another"}, endpoint=name)
    await ask("POST", "/v1/registrations/renew", {"names": ["shop/web/r1", "shop/web/gone"]})
    await ask("POST", one + "/renew", endpoint="r1")
    await east.meshd.until(lambda: len(east.node.registrations.live) == 2)
    await ask("GET", one, endpoint="r1")
    await ask("GET", "/v1/registrations")
    await ask("DELETE", one, endpoint="r1")
    await ask("DELETE", one, endpoint="r2")


async def _ask_of_operations(ask: Ask, east: Served, west: Running) -> None:
    web = {"global": True, "ports": [{"port": 80}]}
    await ask("PUT", WEB, web)
    await ask("PUT", ONE, {"address": "10.0.0.1"})
    await east.meshd.until_count("shop/web", 2)
    drain = {"name": "one", "kind": "drain", "subjects": ["endpoint/shop/web/a"], "steps": 2}
    path = "/v1/operations"
    dry = await east.ask("POST", f"{path}?dry_run=true", drain | {"over_s": 60.0})
    _check("POST", path, dry)
    assert dry.status == 200
    assert dry.json["stages"][0]["shares_ppm"]["shop/web"], "shares are wanted among the examples"
    await ask("POST", path, drain | {"over_s": 60.0})
    for move in ("pause", "resume"):
        await ask("POST", f"{path}/{{operation}}/{move}", {"reason": "why"})
    await ask("POST", f"{path}/{{operation}}/signal", {"error_percent": 0.5})
    await ask("GET", f"{path}/{{operation}}")
    await ask("POST", f"{path}/{{operation}}/rollback")
    await ask("GET", path)
    await ask("DELETE", f"{path}/{{operation}}")
    plan = {"from": "east", "to": "west", "services": ["shop/web"], "steps": [{"percent": 100}]}
    await ask("POST", "/v1/migrations", plan)


async def _ask_of_the_past(east: Served, asked: set[tuple[str, str]]) -> None:
    """The same paths of an earlier moment, and what is different since then."""
    await east.meshd.until(
        lambda: all(peer.store.durable_seq for peer in east.node.peers if peer.name != "south")
    )
    at = (await east.get("/v1/tables"))["events_after"]
    for (method, pattern), operation in OPERATIONS.items():
        query = [_resolve(one)["name"] for one in operation.get("parameters", [])]
        if "as_of" in query:
            path = pattern.format(**(NAMES | {"cluster": "west"}))
            answer = await east.ask(method, f"{path}{QUERIES.get(pattern, '?')}&as_of={at}")
            _check(method, pattern, answer)
            assert answer.status == 200, answer.body
            assert answer.json["as_of"] == at
    await east.meshd.submit(endpoint("shop/web/a", weight=7))
    diff = await east.ask("GET", f"/v1/tables/diff?from={at}")
    _check("GET", "/v1/tables/diff", diff)
    assert diff.json["services"], "a difference is wanted among the examples"
    asked.add(("GET", "/v1/tables/diff"))


async def _ask_of_archives(east: Served, asked: set[tuple[str, str]]) -> None:
    archive = await east.ask("GET", "/v1/logs/archive?log=local")
    _check("GET", "/v1/logs/archive", archive)
    assert archive.status == 200
    asked.add(("GET", "/v1/logs/archive"))


async def _ask_of_streams(east: Served, asked: set[tuple[str, str]]) -> None:
    for pattern in STREAMS:
        async with east.client.get(pattern) as response:
            head = Answer(response.status, dict(response.headers), b"")
            _check("GET", pattern, head)
            assert (await response.content.readline()).startswith(b"retry: ")
            asked.add(("GET", pattern))


PLANNED = """
apiVersion: meshd.io/v1
kind: Service
metadata: {name: web, namespace: shop, labels: {team: a}}
spec: {global: true, affinity: remote, ports: [{port: 81}, {port: 82, name: more}]}
---
apiVersion: meshd.io/v1
kind: Endpoint
metadata: {name: b, namespace: shop}
spec: {service: web, address: 10.0.0.9}
---
apiVersion: v1
kind: Secret
metadata: {name: api}
"""


async def _plan(east: Served) -> None:
    raw, remove = PLANNED.encode(), "?remove=endpoint/shop/web/a"
    planned = await east.ask("POST", f"/v1/plan{remove}", raw, Content_Type="application/yaml")
    _check("POST", "/v1/plan", planned)
    assert planned.status == 200
    own, seen = planned.json["perspectives"]
    assert [one["perspective"] for one in (own, seen)] == ["east", "west"]
    kinds = {one["change"] for one in own["services"][0]["backends"]}
    assert kinds == {"added", "removed", "changed"}
    assert planned.json["unknown"] == ["south"]


async def test_real_answers_are_what_it_says() -> None:
    mesh = Mesh(("east", "south", "west"), overrides=("replication.heartbeat_every_s=0.1",))
    mesh.etcds["south"].set_up(up=False)
    asked: set[tuple[str, str]] = set()
    async with serve_cluster("east", mesh=mesh) as east, mesh.running("west") as west:

        async def ask(method: str, pattern: str, body: object = None, **names: str) -> Answer:
            path = pattern.format(**(NAMES | {"cluster": "west"} | names))
            answer = await east.ask(method, path + QUERIES.get(pattern, ""), body)
            _check(method, pattern, answer)
            if answer.status in {200, 201, 202}:
                asked.add((method, pattern))
            return answer

        await west.submit(
            service(ports=()), endpoint("shop/web/x"), endpoint("shop/web/y", ready=False)
        )
        await east.meshd.until_ready("west")
        await ask("PUT", WEB, DEFINED)
        await ask("PUT", ONE, {"address": "10.0.0.1", "serving": False})
        await east.meshd.until_count("shop/web", 2)
        await _ask_of_things(ask, east)

        table = (await ask("GET", "/v1/tables")).json
        (shown,) = table["services"]
        assert shown["conditions"], "a condition is wanted among the examples"
        applied = await east.ask("POST", "/v1/apply", APPLY, Content_Type="application/yaml")
        _check("POST", "/v1/apply", applied)
        dry = await east.apply(APPLY.decode(), "?dry_run=true")
        _check("POST", "/v1/apply", dry)
        assert {applied.status, dry.status} == {200}
        asked.add(("POST", "/v1/apply"))
        await _plan(east)
        asked.add(("POST", "/v1/plan"))
        for method, pattern in OPERATIONS:
            if method == "GET" and "{operation}" not in pattern and pattern not in STREAMS:
                await ask(method, pattern)
        await _ask_of_streams(east, asked)
        one = await ask("GET", "/v1/clusters/{cluster}", cluster="east")
        assert one.json["conditions"], "a condition is wanted among the examples"
        await _ask_of_the_past(east, asked)
        await _ask_of_archives(east, asked)
        await ask("GET", "/v1/clusters/{cluster}", cluster="south")
        await _ask_of_operations(ask, east, west)
        await _ask_of_peers(ask, east, west)
        await ask("DELETE", ONE)
        await ask("DELETE", WEB)
    assert asked == set(OPERATIONS)


async def test_real_problems_are_what_it_says(east: Served) -> None:
    names = ("namespace", "service", "endpoint", "cluster", "node", "policy")
    missing = dict.fromkeys(names, "no") | {
        "number": "65999",
        "kind": "node",
        "name": "no",
        "operation": "no",
    }
    invalid = dict.fromkeys(missing, "No")
    statuses = set()
    for (method, pattern), operation in OPERATIONS.items():
        body: object = {"colour": 1} if "requestBody" in operation else None
        for filled in (missing, invalid) if pattern not in STREAMS else ():
            answer = await east.ask(method, pattern.format(**filled), body)
            _check(method, pattern, answer)
            statuses.add(answer.status)
        if pattern not in {"/livez", "/readyz"}:
            refused = await east.ask(method, pattern.format(**missing) + "?colour=red", body)
            _check(method, pattern, refused)
            assert refused.status == 400
            elsewhere = await east.ask(method, pattern.format(**missing), body, Host="evil.example")
            _check(method, pattern, elsewhere)
            assert elsewhere.status == 421
    assert statuses >= {200, 404, 422}
    east.meshd.kv.is_denied = True
    for (method, pattern), operation in OPERATIONS.items():
        # What is said about a peer is no write, there is no such operation, and of these the body
        # is wrong.
        is_none = "peers" in pattern or "{operation}" in pattern
        if method != "GET" and pattern not in NO_WRITES and not is_none:
            sent = next((sent for part, sent in BODIES.items() if part in pattern), {})
            body = sent if "requestBody" in operation else None
            answer = await east.ask(method, pattern.format(**missing), body)
            _check(method, pattern, answer)
            assert answer.status == 503
