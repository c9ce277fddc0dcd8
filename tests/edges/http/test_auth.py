"""Who may ask, and what keeps web pages out where everybody local may."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.edges.http.served import Served, serve_cluster

OPEN = ("/livez", "/readyz")
CLOSED = ("/metrics", "/v1/status", "/v1/openapi.json", "/v1/events", "/v2/nothing")
WEB = "/v1/services/shop/web"


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Bearer", "Basic secret", "Bearer sécret"])
async def test_without_the_token_nothing_but_the_probes_answers(given: str) -> None:
    async with serve_cluster(api={"token": SecretStr("secret")}) as east:
        headers = {"Authorization": given} if given else {}
        for path in OPEN:
            assert (await east.ask("GET", path, **headers)).status == 200
        for path in CLOSED:
            answer = await east.ask("GET", path, **headers)
            assert (answer.status, answer.slug) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="meshd"')
        assert (await east.ask("PUT", WEB, {}, **headers)).status == 401
        assert WEB not in str(await east.meshd.parts.node.history.read(east.meshd.name, 0, 10))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_the_token_of_the_file_opens(tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "token"
    file.write_text("secret\nnot this line\n")
    async with serve_cluster(api={"token_file": file}) as east:
        for path in CLOSED[:-1]:
            assert (await east.ask("GET", path, Authorization=f"{scheme} secret")).status == 200


async def test_with_a_token_any_host_name_will_do() -> None:
    async with serve_cluster(
        api={"token": SecretStr("s")}, headers={"Authorization": "Bearer s"}
    ) as east:
        assert (await east.ask("GET", "/v1/status", Host="mesh.example")).status == 200
        answer = await east.ask("PUT", WEB, {}, Origin="https://console.example")
        assert answer.status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7979", "10.0.0.1", "[", ""])
async def test_without_a_token_a_name_that_was_rebound_is_turned_away(
    east: Served, host: str
) -> None:
    answer = await east.ask("GET", "/v1/services", Host=host)
    assert (answer.status, answer.slug) == (421, "misdirected")
    assert (await east.ask("GET", "/livez", Host=host)).status == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:7979", "127.0.0.2:1", "[::1]:7979"])
async def test_without_a_token_every_name_of_loopback_will_do(east: Served, host: str) -> None:
    assert (await east.ask("GET", "/v1/services", Host=host)).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_without_a_token_pages_of_other_sites_may_not_write(
    east: Served, origin: str
) -> None:
    for method, path in (("PUT", WEB), ("DELETE", WEB), ("POST", "/v1/apply")):
        answer = await east.ask(method, path, {}, Origin=origin)
        assert (answer.status, answer.slug) == (403, "forbidden")
    assert (await east.ask("GET", "/v1/services", Origin=origin)).status == 200


async def test_a_page_of_the_same_origin_may_write(east: Served) -> None:
    answer = await east.ask("PUT", WEB, {}, Origin=f"http://{east.address}")
    assert answer.status == 200
