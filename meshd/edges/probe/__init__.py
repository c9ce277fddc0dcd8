"""Asking an endpoint whether it is well, by whatever it speaks.

For: the door `Look`. Not for: what an answer means (`core.health`). Invariants: every way ends
within the probe's time; a certificate, redirect, proxy or body of the other side is no concern.
"""

from __future__ import annotations

import asyncio
from typing import assert_never

from meshd.edges.probe.grpc import look_by_grpc
from meshd.edges.probe.http import look_by_http
from meshd.edges.probe.tcp import look_by_tcp
from meshd.model.errors import shortened
from meshd.model.probe import Probe, ProbeType


async def look(address: str, port: int, probe: Probe) -> str:
    """Ask once; returns what is wrong, '' for nothing."""
    try:
        async with asyncio.timeout(probe.timeout_s):
            match probe.type:
                case ProbeType.TCP:
                    return await look_by_tcp(address, port)
                case ProbeType.HTTP:
                    return shortened(await look_by_http(address, port, probe))
                case ProbeType.GRPC:
                    return shortened(await look_by_grpc(address, port, probe))
                case _:
                    assert_never(probe.type)
    except TimeoutError:
        return f"no answer within {probe.timeout_s:g} s"
    except (OSError, ValueError) as error:
        # What a library makes of a strange answer must not end who asked.
        return shortened(str(error) or type(error).__name__)
