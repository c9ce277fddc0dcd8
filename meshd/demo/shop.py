"""The endpoints of one cluster: real HTTP servers, in a process of their own.

For: answering who they are, with or without a control plane beside them. Not for: knowing anything
of meshd. Invariant: the servers open in the order given, so all answer once the last one does.

    python -m meshd.demo.shop --cluster east --serve web/web-1=127.77.1.11:8080 …
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import orjson
from aiohttp import web

GRACE_S = 1.0
"""How long requests under way may take at the end."""


@dataclass(frozen=True, slots=True)
class Server:
    """One endpoint and where it listens."""

    service: str
    endpoint: str
    host: str
    port: int

    @staticmethod
    def parse(text: str) -> Server:
        """Read `service/endpoint=host:port`."""
        name, _, address = text.partition("=")
        service, _, endpoint = name.partition("/")
        host, _, port = address.rpartition(":")
        return Server(service, endpoint, host, int(port))

    def __str__(self) -> str:
        return f"{self.service}/{self.endpoint}={self.host}:{self.port}"


def _answer(cluster: str, server: Server) -> Callable[[web.Request], Awaitable[web.Response]]:
    body = orjson.dumps(
        {"cluster": cluster, "service": server.service, "endpoint": server.endpoint}
    )

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return answer


async def serve(cluster: str, servers: list[Server]) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        for server in servers:
            app = web.Application()
            app.router.add_get("/{path:.*}", _answer(cluster, server))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE_S)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, server.host, server.port).start()
        await stop.wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--serve", type=Server.parse, nargs="*", default=[])
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.cluster, arguments.serve))


if __name__ == "__main__":
    main()
