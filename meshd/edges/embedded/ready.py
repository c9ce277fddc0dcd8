"""Whether etcd answers.

For: one question over HTTP, which etcd answers once it has a leader. Not for: its API (`etcd`), and
not for its health, which is bad when the disk quota is used up and reading still works.
Invariant: asking takes a bounded time and changes nothing.
"""

from __future__ import annotations

import asyncio
import ssl

from meshd.edges.embedded.config import EmbeddedConfig, EmbeddedTls

ASK_TIMEOUT_S = 2.0


async def is_ready(config: EmbeddedConfig) -> bool:
    """Ask for etcd's version."""
    host, _, port = config.client_address.rpartition(":")
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            tls = await asyncio.to_thread(_context, config.tls) if config.tls else None
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=tls)
            try:
                writer.write(b"GET /version HTTP/1.0\r\n\r\n")
                await writer.drain()
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in answer.partition(b"\r\n")[0] and b'"etcdserver"' in answer


def _context(tls: EmbeddedTls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca_file))
    # It is known by who signed it; what names it has is its clients' affair.
    context.check_hostname = False
    context.load_cert_chain(tls.cert_file, tls.key_file)
    return context
