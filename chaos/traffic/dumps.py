"""Dumps of all logs, by etcdctl, beside meshd.

For: what commands, streams and tables are judged by. Not for: reading them (`raw`). Invariants: a
dump says when it was asked for, since what was done meanwhile may be in it or not; an etcd that
can't be read is passed over.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from chaos import answers
from chaos.etcds import Etcd
from chaos.history import RawLog
from chaos.journal import LINE_BYTES_MAX
from chaos.mesh.shape import Cluster
from chaos.recorder import Recorder
from chaos.traffic.counters import Counters
from chaos.traffic.pacing import Gate, paced

DUMP_TIMEOUT_S: Final = 15.0
"""etcdctl gives up by itself before: a dump of 100 MB takes some 2 s."""
LIMITS: Final = ("--command-timeout=10s", "--dial-timeout=3s")
KEY_BYTES: Final = 64
"""What a key has on a line beside its name and value, at most."""


@dataclass(slots=True)
class Dumper:
    """Of one cluster."""

    cluster: Cluster
    recorder: Recorder
    counters: Counters

    async def run(self, every_s: float, gate: Gate) -> None:
        """Dump for ever."""
        async for _ in paced(every_s, gate, first_s=every_s):
            await self.dump()

    async def dump(self) -> bool:
        """Read all logs now; returns whether they could be read, and held."""
        etcd = self.cluster.etcd
        if etcd is None:
            return False
        asked_ns = self.recorder.now_ns()
        said = await _all_keys(etcd)
        if said is None:
            self.counters.skipped += 1
            return False
        at_ns = self.recorder.now_ns()
        is_whole = True
        for log in answers.raw_logs(self.cluster.name, at_ns, said):
            if _line_bytes(log) > LINE_BYTES_MAX:
                self.counters.skipped += 1
                is_whole = False
            else:
                self.recorder.note(replace(log, asked_ns=asked_ns))
                self.counters.dumps += 1
        return is_whole


async def _all_keys(etcd: Etcd) -> bytes | None:
    try:
        async with asyncio.timeout(DUMP_TIMEOUT_S):
            return await etcd.ctl("get", "--prefix", "/meshd/v1/", "-w", "json", *LIMITS)
    except (RuntimeError, TimeoutError):
        return None


def _line_bytes(log: RawLog) -> int:
    """How long its line is at most."""
    return sum(len(key.key) + len(key.value) + KEY_BYTES for key in log.keys) + KEY_BYTES**2
