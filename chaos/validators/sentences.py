"""The invariants in words, as the design has them.

For: reports, and every violation. Not for: judging. Invariant: a sentence is changed together with
what judges it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TEXT: Final = """
I1 durable: every acknowledged command is in the log for ever after (until trimmed behind a snapshot
that holds it), through any crash of meshd, etcd or both; across a declared restore it is named lost

I2 at most once: no command or idempotency key makes its events twice; an unknown outcome counts 0
or 1

I3 dense order: seq is 1..n without gap or repeat, mod revision rises with seq, the hash chain holds

I4 immutable: a log key is written once; deletes happen only below the published trim point

I5 exactly-once apply: per reader and generation applied seqs start at snapshot + 1 and rise by
exactly 1; effects never repeat after a crash

I6 reliable: what was applied equals the raw log between first and last; a snapshot equals the fold
of what it replaces; a replica is a byte-for-byte copy

I7 identity: a generation holds one log id and one chain; a fork is noticed within a stated bound
after reconnecting

I8 ownership: every item in a table comes from its own cluster's log; an event of A changes only A's
part

I9 no stale write: no record is appended on a state older than the record before it; nothing
leader-only happens after the lease is lost

I10 contained: a poisoned log stops at its bad seq and nowhere else

I11 convergence: within a stated bound after the last fault heals, every cluster's vector equals the
raw heads and its table equals an independent reference derivation

I12 isolation: with faults only on some clusters the others keep 100 % append success, p99 of append
and of replication lag within max(1.2 \N{MULTIPLICATION SIGN}, +50 ms) of their quiet window, and no
table change without an event that explains it

I13 streams: a subscriber's stream over all its reconnects equals the log, or shows an explicit
reset before a jump

I14 bounded: memory, descriptors, tasks, queues and retry rates stay under documented caps

I15 honest: 'ready' implies a bounded lag; tables are never empty for lack of knowledge; the same
vector gives the same digest anywhere

I16 read-only: meshd writes nothing to a peer's etcd, and its credentials could not

I17 confidential: what is not exported to an audience can't be read, fetched or inferred from gaps
by that audience

I18 incremental: the incremental table equals the table derived from scratch
"""


def _parsed() -> dict[str, tuple[str, str]]:
    found = {}
    for paragraph in _TEXT.strip().split("\n\n"):
        heading, _, sentence = paragraph.replace("\n", " ").partition(": ")
        invariant, _, name = heading.partition(" ")
        found[invariant] = name, sentence
    return found


SENTENCES: Final[Mapping[str, tuple[str, str]]] = _parsed()
"""Name and sentence of each invariant."""
