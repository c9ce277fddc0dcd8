"""Reading the settings again while meshd runs.

For: SIGHUP. Not for: what the peers' part of it means (`runtime.listing`, `runtime.peers`).
Invariants: settings with any problem change nothing; of those without, only the peers are taken,
and what else differs is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from meshd.daemon.peering import peer_target
from meshd.model.errors import FatalError, RejectedError
from meshd.runtime.peers import Peers
from meshd.settings import Settings
from meshd.settings.changes import changed_but_peers

log = structlog.get_logger(__name__)

Reread = Callable[[], Settings]
"""Reads the settings from where they came; raises RejectedError with all problems."""


async def keep_reloading(
    asked: asyncio.Event, settings: Settings, reread: Reread, peers: Peers
) -> None:
    """Read the settings again whenever it is asked for. settings: those that meshd runs with."""
    while True:
        await asked.wait()
        asked.clear()
        await reload(settings, reread, peers)


async def reload(settings: Settings, reread: Reread, peers: Peers) -> None:
    """Take the peers of the settings as they are now."""
    try:
        new = await asyncio.to_thread(reread)
        for peer in new.peers:
            # A file without a secret in it passes every rule of the settings.
            peer_target(peer, settings.replication)
    except RejectedError as error:
        log.error("settings are not taken", problems=[str(one) for one in error.problems])  # noqa: TRY400 the problems say all
        return
    except FatalError as error:
        log.error("settings are not taken", problems=[str(error)])  # noqa: TRY400 the same
        return
    changed = changed_but_peers(settings, new)
    if changed:
        log.warning("settings that differ are taken by a restart only", settings=list(changed))
    peers.relist(new.peers)
    log.info("settings read again", peers=[peer.name for peer in new.peers])
