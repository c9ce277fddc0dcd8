"""A probe by grpc.health.v1.

Its two messages have the wire form of protobuf's own wrappers: a text in field 1, and an enum,
which is a number, in field 1. So no generated code is needed for them.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from meshd.model.probe import Probe

CHECK = "/grpc.health.v1.Health/Check"
SERVING = 1
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
OPTIONS = (
    # A proxy for web pages is none for endpoints, and a retry would hide a bad answer.
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # Each probe is a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
)


async def look_by_grpc(address: str, port: int, probe: Probe) -> str:
    """Whether the server says that the service is SERVING."""
    host = f"ipv6:[{address}]" if ":" in address else f"ipv4:{address}"
    async with grpc.aio.insecure_channel(f"{host}:{port}", OPTIONS) as channel:
        check = channel.unary_unary(
            CHECK,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=Int32Value.FromString,
        )
        try:
            answer: Any = await check(StringValue(value=probe.service), timeout=probe.timeout_s)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    status = answer.value
    if status == SERVING:
        return ""
    return STATUSES[status] if 0 <= status < len(STATUSES) else f"status {status}"
