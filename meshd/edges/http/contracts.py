"""`/v1/openapi.json` and `/v1/asyncapi.json`: how this interface is used.

For: the descriptions in the package. Not for: what they say (`scripts/make_schemas.py` writes
them). Invariant: what is served is `protocols/` of the same version.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from aiohttp import web

from meshd.edges.http.requests import check_query

NAMES: Final = ("openapi.json", "asyncapi.json")
CONTRACTS: Final = web.AppKey("CONTRACTS", dict[str, bytes])
JSON_TYPE: Final = "application/json"


def routes() -> list[web.AbstractRouteDef]:
    """The paths that are served here."""
    return [web.get(f"/v1/{name}", get_contract) for name in NAMES]


def contract_text(name: str) -> bytes:
    """A file of `protocols/`, as it is in the package."""
    return (files("meshd") / "protocols" / name).read_bytes()


async def get_contract(request: web.Request) -> web.Response:
    """One of the descriptions."""
    check_query(request)
    name = request.path.rpartition("/")[2]
    return web.Response(body=request.app[CONTRACTS][name], content_type=JSON_TYPE)
