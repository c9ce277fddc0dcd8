"""What somebody outside tells of an operation while it runs: the percent of requests that fail.

For: any meshd of the cluster being told, and the one that leads knowing. Not for: what follows of
it (`core.operations`). Invariants: it is in no log, since it is told every few seconds and only the
last counts; it goes by itself once nobody tells it any more.
"""

from __future__ import annotations

from typing import Final

import orjson

from meshd.core.operations import Signal
from meshd.model.keyspace import Keyspace
from meshd.runtime.ports import Clock, Kv, Put, Txn

KEPT_S: Final = 3600
"""As long as the oldest signal that an operation may go by."""


class Signals:
    """The last signal of each operation, in the own etcd."""

    def __init__(self, kv: Kv, keyspace: Keyspace, clock: Clock) -> None:
        self._kv = kv
        self._keyspace = keyspace
        self._clock = clock

    async def tell(self, operation: str, error_percent: float) -> Signal:
        """Note what was measured; raises as `Kv` does."""
        signal = Signal(error_percent, self._clock.wall_ms())
        value = orjson.dumps({"error_percent": error_percent, "at_ms": signal.at_ms})
        lease = await self._kv.grant_lease(KEPT_S)
        await self._kv.commit(Txn(success=(Put(self._keyspace.signal(operation), value, lease),)))
        return signal

    async def last(self, operation: str, since_ms: int) -> Signal | None:
        """What was told last, if it was told since then; raises as `Kv` does."""
        found = await self._kv.range(self._keyspace.signal(operation))
        if not found.kvs:
            return None
        signal = decode_signal(found.kvs[0].value)
        return signal if signal is not None and signal.at_ms >= since_ms else None


def decode_signal(raw: bytes) -> Signal | None:
    """A signal; what can't be read was never told."""
    try:
        fields = orjson.loads(raw)
        return Signal(float(fields["error_percent"]), int(fields["at_ms"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
