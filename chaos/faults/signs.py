"""Signs from outside that something is broken: refused, silent, out of sight, another than before.

For: the proofs of faults, by asking REST and looking at processes. Not for: judging what is right
meanwhile (`chaos.validators`). Invariant: nothing here has an own limit of time, except for how
long one answer may take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, Final, ParamSpec, TypeVar

import aiohttp

from chaos.faults.fault import Stage
from chaos.faults.ground import ASK_EVERY_S, UNANSWERED, Answer, ask, first_of, running, until
from chaos.mesh.shape import Cluster, Kind, Server

OUT_OF_SIGHT: Final = frozenset({"Stale", "Lost"})
REFUSED_WRITE: Final = frozenset({503, 504, 507})
"""Not now; not within the time that was granted; no space."""
REASON_CHARS_SHOWN: Final = 300
PATIENCE_S: Final = 1.0
"""Who runs answers on loopback within milliseconds; a busy machine is granted a second."""
SILENCE_MIN_S: Final = 3.0
"""Three beats of a heart."""
LATE_S: Final = 1.0
"""What was under way may still arrive, and an answer takes a moment."""
PROBE: Final = "/v1/services/chaos/probe"
"""What is written to see whether writes are taken: a service that no peer is told of."""

_T = TypeVar("_T")
_P = ParamSpec("_P")


async def when(look: Callable[_P, Awaitable[_T]], *args: _P.args, **more: _P.kwargs) -> _T:
    """Look until there is something that counts as true; returns it."""
    while not (found := await look(*args, **more)):  # noqa: ASYNC110 nobody tells us
        await asyncio.sleep(ASK_EVERY_S)
    return found


async def gone(server: Server) -> str:
    """Wait until a process is gone, and nobody takes connections in its place."""
    host, _, port = server.address.rpartition(":")
    while True:
        if server.pid is None:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
            except OSError:
                return f"{server.name} is gone, and {server.address} refuses connections"
        await asyncio.sleep(ASK_EVERY_S)


async def silent(server: Server, path: str) -> str:
    """Wait until a process that runs answers nothing."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while True:
            try:
                async with http.get(f"http://{server.address}{path}") as response:
                    await response.read()
            except TimeoutError:
                if server.pid is not None:
                    return f"{server.name} runs and doesn't answer within {PATIENCE_S:g} s"
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(ASK_EVERY_S)


async def write_refused(meshd: Server, word: str = "") -> str:
    """Wait until a meshd refuses to write, with this word in its reason."""
    number = 0
    while True:
        number += 1
        with suppress(*UNANSWERED):
            answer = await ask(meshd, PROBE, "PUT", {"labels": {"n": str(number)}})
            reason = _reason(answer)
            if answer.status in REFUSED_WRITE and word in reason:
                return f"{meshd.name} answers a write with {answer.status}: {reason}"
        await asyncio.sleep(ASK_EVERY_S)


def _reason(answer: Answer) -> str:
    data = answer.data if isinstance(answer.data, dict) else {}
    return str(data.get("detail") or data.get("title") or "")[:REASON_CHARS_SHOWN]


async def peer_is(
    reader: Server, peer: str, phases: Collection[str], words: Collection[str] = ("",)
) -> str:
    """Wait until a reader has a peer in one of these phases, with one of the words in its reason.
    Case doesn't count.
    """

    def is_so(item: Any) -> bool:
        reason = item["reason"].lower()
        return item["phase"] in phases and any(word.lower() in reason for word in words)

    item = await until(reader, f"/v1/peers/{peer}", is_so)
    reason = f": {item['reason'][:REASON_CHARS_SHOWN]}" if item["reason"] else ""
    return f"{reader.name} calls {peer} {item['phase']}{reason}"


async def out_of_sight(victim: Cluster, stage: Stage) -> str:
    """Wait until somebody has lost sight of a victim."""
    readers = running(stage.others, Kind.MESHD)
    return await first_of(peer_is(reader, victim.name, OUT_OF_SIGHT) for reader in readers)


async def parted(victim: Cluster, stage: Stage, since_s: float) -> str:
    """Wait until a victim or somebody else has heard nothing of the other since then, by the clock
    of the event loop, and has lost sight of it.
    """
    seen_by_others = [
        _unheard(reader, victim.name, since_s) for reader in running(stage.others, Kind.MESHD)
    ]
    seen_by_victim = [
        _unheard(reader, other.name, since_s)
        for reader in running([victim], Kind.MESHD)
        for other in stage.others
    ]
    return await first_of([*seen_by_others, *seen_by_victim])


async def _unheard(reader: Server, peer: str, since_s: float) -> str:
    """A busy machine may lose sight of somebody for a moment: that is no proof."""
    now_s = asyncio.get_running_loop().time

    def is_unheard(item: Any) -> bool:
        silence_s = now_s() - since_s
        heard_s = silence_s - item["heartbeat_age_s"]
        is_long = silence_s >= SILENCE_MIN_S and heard_s < LATE_S
        return item["phase"] in OUT_OF_SIGHT and is_long

    item = await until(reader, f"/v1/peers/{peer}", is_unheard)
    age_s = item["heartbeat_age_s"]
    return (
        f"{reader.name} calls {peer} {item['phase']}, and has heard nothing of it for {age_s:g} s"
    )


async def run_again(clusters: Iterable[Cluster], *kinds: Kind) -> None:
    """Let the processes of these kinds go on if they are frozen, and start those that don't run.

    All at a time: one member of an etcd doesn't answer before there is a quorum.
    """
    wanted = [server for one in clusters for server in one.servers if server.kind in kinds]
    for server in wanted:
        if server.pid is not None:
            await server.thaw()
    async with asyncio.TaskGroup() as tasks:
        for server in wanted:
            tasks.create_task(server.start())
