"""One meshd's parts, as those see them who serve it.

For: handing the runtime to the edges in one value. Not for: building it (`daemon`).
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.model.codec import Descriptor
from meshd.model.keyspace import Keyspace
from meshd.runtime.agreement import Agreement
from meshd.runtime.history import History
from meshd.runtime.leadership import Leadership
from meshd.runtime.operator import Operator
from meshd.runtime.past import Past
from meshd.runtime.peers import Peers
from meshd.runtime.ports import Clock, Kv
from meshd.runtime.prober import Prober
from meshd.runtime.projector import Projector
from meshd.runtime.publisher import Publisher
from meshd.runtime.registrations import Registrations
from meshd.runtime.trails import Trails
from meshd.runtime.writer import Writer


@dataclass(frozen=True, slots=True)
class Node:
    """A running meshd. started_s: monotonic time of its start. publisher: None without a broker."""

    descriptor: Descriptor
    kv: Kv
    keyspace: Keyspace
    projector: Projector
    writer: Writer
    peers: Peers
    history: History
    past: Past
    trails: Trails
    agreement: Agreement
    registrations: Registrations
    prober: Prober
    leadership: Leadership
    operator: Operator
    clock: Clock
    started_s: float
    publisher: Publisher | None = None
