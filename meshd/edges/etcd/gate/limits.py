"""How much of this meshd and of its etcd the readers of the gate may take.

For: the numbers and why they are so. Not for: keeping them. Invariant: what a reader may take is
bounded whatever it asks for and however slowly it listens, and no reader's part is another's.
"""

from __future__ import annotations

from typing import Final

from meshd.core.carried import RECORDS_MAX
from meshd.runtime.reading import WINDOW_BYTES_MAX

KIB: Final = 1024
MIB: Final = 1024 * KIB

REQUEST_BYTES_MAX: Final = 16 * KIB
"""The largest request of a follower holds five keys; keys are shorter than 512 bytes."""
REQUEST_S: Final = 5.0
"""A request is a few hundred bytes, so whoever takes longer to send it doesn't mean to."""
KEYS_MAX: Final = RECORDS_MAX
"""Of one range read. A follower never asks for more; who does is told that there is more."""
ANSWER_BYTES_MAX: Final = WINDOW_BYTES_MAX + 4 * MIB
"""A follower asks for what it expects to fit into its window, and may be wrong by a record."""
TXN_READS_MAX: Final = 16
"""A follower identifies a log by five keys."""
READS_AT_ONCE: Final = 2
"""A follower has one read under way. With two for several meshds, a reader holds at most two
answers in memory here."""
READS_WAITING_MAX: Final = 16
"""More would be answered after their callers' deadlines."""
WATCHES_MAX: Final = 16
"""A meshd has one watch, and a moment two; so many for a peer of several meshds."""
CALLS_PER_S: Final = 200.0
"""A follower that catches up reads about 20 windows a second."""
BYTES_PER_S: Final = 64.0 * MIB
"""Twice what a follower takes by its default budget."""
BURST_S: Final = 10.0
"""As in a follower's budget: a first copy isn't slowed."""
PAUSE_S_MAX: Final = 1.0
"""A reader that asks too much waits at most so long for each answer's end; the debt stays."""
WRITE_S: Final = 120.0
"""Who takes no message for so long is cut. The largest, 3 MiB, takes 100 s on a line of 256 kbit/s,
and must get through there, or the same one would be sent again and again."""
RECHECK_S: Final = 2.0
"""How often password files are read anew: the time until a revoked reader is cut."""
WRONG_LOGINS_MAX: Final = 4
"""So many wrong passwords are answered at a time, each after a pause; more are turned away."""
WRONG_LOGIN_S: Final = 0.5
"""With four at a time that is eight guesses a second, which no password of a machine falls to."""

PING_MS_MIN: Final = 5_000
"""etcd allows a client a ping every 5 s, and meshd's client sends one every 10 s."""
KEEPALIVE_MS: Final = 10_000
KEEPALIVE_TIMEOUT_MS: Final = 5_000
"""A reader that is gone without a word is noticed within 15 s, and its watches end."""
STREAMS_PER_CONNECTION_MAX: Final = 64
"""All that one reader may have, and some."""
