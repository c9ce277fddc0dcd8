"""Who may ask.

For: the bearer token, and keeping web pages out where no token is needed. Not for: client
certificates, which TLS checks before any request (`listening`). Invariants: a token is compared in
constant time; only `OPEN_PATHS` answer without it.

Without a token meshd listens on loopback only, where every web page in a local browser can send
requests too. Two headers that pages can't choose keep them out: Host (a name that was rebound to
127.0.0.1) and Origin (a form or script of another site). A WebSocket can be read by any page that
can open it, so its Origin is looked at as a write's is, also where client certificates protect:
browsers send those by themselves.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from meshd.edges.http.problems import FORBIDDEN, MISDIRECTED, UNAUTHORIZED, HttpProblem
from meshd.edges.http.requests import is_upgrade

OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
"""Kubelets and load balancers ask these, and learn nothing more than yes or no."""
SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


def guard(token: str, *, is_local: bool) -> Middleware:
    """Make the middleware that lets requests through or not.

    token: '' for none. is_local: no token and no client certificate protects this listener.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS:
            if token:
                _check_token(request, token)
            elif is_local:
                _check_browser(request)
            elif is_upgrade(request):
                _check_origin(request)
        return await handler(request)

    return check


def _check_token(request: web.Request, token: str) -> None:
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    is_bearer = scheme.lower() == "bearer"
    # Bytes, since compare_digest takes no other text than ASCII.
    is_known = hmac.compare_digest(given.strip().encode(errors="replace"), token.encode())
    if not (is_bearer and is_known):
        wrong = 'error="invalid_token"' if is_bearer else ""
        raise HttpProblem(
            UNAUTHORIZED,
            "send 'Authorization: Bearer <token>' with the token of api.token_file",
            headers={hdrs.WWW_AUTHENTICATE: f'Bearer realm="meshd"{wrong and ", " + wrong}'},
        )


def _check_browser(request: web.Request) -> None:
    host = request.headers.get(hdrs.HOST, "")
    if not _is_loopback(host):
        raise HttpProblem(
            MISDIRECTED, f"{host!r} is not this machine's loopback address; ask for 127.0.0.1"
        )
    if request.method not in SAFE_METHODS or is_upgrade(request):
        _check_origin(request)


def _check_origin(request: web.Request) -> None:
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and not _is_same(origin, request.headers.get(hdrs.HOST, "")):
        what = "open a WebSocket" if is_upgrade(request) else f"send {request.method}"
        raise HttpProblem(FORBIDDEN, f"origin {origin!r} may not {what}")


def _is_loopback(host: str) -> bool:
    try:
        name = URL(f"http://{host}").host or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _is_same(origin: str, host: str) -> bool:
    return origin.partition("://")[2] == host
