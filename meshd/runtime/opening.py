"""Reading the own log before anything else: it says whom to follow, and what to pass over.

For: a start that serves every replica as it was served before. Not for: following the own log,
which goes on from here (`follower`). Invariant: what is adopted was folded from a log that was
checked to its end; where it can't be, nothing is, and the follower finds out why.
"""

from __future__ import annotations

import structlog

from meshd.model.errors import CorruptError
from meshd.model.keyspace import Keyspace
from meshd.runtime.follower import Follower
from meshd.runtime.ports import Kv
from meshd.runtime.projector import Projector
from meshd.runtime.stored_log import LOCAL, fold_log, open_log

log = structlog.get_logger(__name__)


async def open_own_log(
    kv: Kv, keyspace: Keyspace, projector: Projector, follower: Follower
) -> None:
    """Fold the own log, and let its follower go on behind it; to be called before both run.

    Raises TransientError, DeniedError or NotFoundError.
    """
    try:
        stored = await open_log(kv, keyspace, LOCAL)
        audit = await fold_log(stored.reader, projector.own, stored.head, stored.snapshot)
    except CorruptError as error:
        log.warning("the own log can't be read at once", reason=str(error))
        return
    projector.adopt(projector.own, stored.head, audit.state)
    follower.resume_at(stored.head, 0)
