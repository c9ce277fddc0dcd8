"""An aiohttp server that answers constants: what no handler in aiohttp can beat.

For: the reference of REST, in a process of its own as meshd is. Not for: anything but this: it
reads nothing and makes nothing; one path, one answer; 304 for who names its tag.

`python -m tests.bench.constant_server HOST:PORT` is asked `{path: {body, headers}}`, which it then
serves; it answers when it does.
"""

from __future__ import annotations

import asyncio
import sys
from hashlib import blake2b
from typing import Any

from aiohttp import web

from tests.bench.children import answer_all


def tag_of(body: bytes) -> str:
    """Name a body, as HTTP's entity tags do."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


async def serve(address: str) -> None:
    """Serve until standard input ends."""
    constants: dict[str, tuple[bytes, str]] = {}

    async def constant(request: web.Request) -> web.Response:
        body, tag = constants[request.path]
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        return web.Response(body=body, content_type="application/json", headers={"ETag": tag})

    async def take(asked: dict[str, Any]) -> None:
        for path, body in asked.items():
            constants[path] = body.encode(), tag_of(body.encode())

    application = web.Application()
    application.router.add_get("/v1/tables/{namespace}/{service}", constant)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    await web.TCPSite(runner, host, int(port)).start()
    try:
        await answer_all(take)
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
