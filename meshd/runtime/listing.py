"""Which peers are to be followed: those of the settings and those that the local log lists.

For: one answer for everybody who asks. Not for: following them (`peers`). Invariants: the settings
win by name, since what a host's own file says can't be taken away from afar; a listed peer that
this host can't use is named with its problems and harms nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network

import structlog

from meshd.core.claims import Claims
from meshd.core.state import Held
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName
from meshd.model.listed import ListedPeer
from meshd.runtime.projector import Projector
from meshd.settings import PeerSettings, Settings
from meshd.settings.listed import peer_settings

log = structlog.get_logger(__name__)


class Source(StrEnum):
    """Who lists a peer."""

    SETTINGS = "settings"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Wish:
    """A peer that is to be followed, and how."""

    settings: PeerSettings
    source: Source

    @property
    def name(self) -> ClusterName:
        """Which peer."""
        return ClusterName(self.settings.name)


Basis = tuple[tuple[PeerSettings, ...], Mapping[ClusterName, Held[ListedPeer]]]
"""All that the answer depends on, apart from this host's files."""


class Listing:
    """The peers that are listed. peers: those of the settings, as they were last read."""

    def __init__(self, settings: Settings, projector: Projector) -> None:
        self._settings = settings
        self._projector = projector
        self._shadowed: frozenset[ClusterName] = frozenset()
        self.peers = settings.peers

    def basis(self) -> Basis:
        """What `wishes` would be made from now."""
        return self.peers, dict(self._listed())

    def _listed(self) -> Mapping[ClusterName, Held[ListedPeer]]:
        own = self._projector.state(self._projector.own)
        return own.peers if own is not None else {}

    def is_in_settings(self, name: ClusterName) -> bool:
        """Whether this meshd's own settings list a peer."""
        return any(peer.name == name for peer in self.peers)

    def names(self) -> frozenset[ClusterName]:
        """All that are listed, those that can't be used included."""
        return frozenset({ClusterName(peer.name) for peer in self.peers} | set(self._listed()))

    def claims(self, name: ClusterName) -> Claims | None:
        """Where a listed peer's endpoints may be, whatever else is wrong with it; None if even that
        can't be read.
        """
        for peer in self.peers:
            if peer.name == name:
                return peer.announces
        held = self._listed().get(name)
        try:
            return tuple(map(ip_network, held.value.announces)) if held else None
        except ValueError:
            return None

    def wishes(self) -> tuple[dict[ClusterName, Wish], dict[ClusterName, str]]:
        """Whom to follow, and why who else is listed can't be."""
        wanted = {ClusterName(peer.name): Wish(peer, Source.SETTINGS) for peer in self.peers}
        unusable: dict[ClusterName, str] = {}
        self._warn_of(frozenset(wanted) & frozenset(self._listed()))
        for name, held in sorted(self._listed().items()):
            if name in wanted:
                continue
            others = [wish.settings for wish in wanted.values()]
            try:
                settings = self._peer_settings(name, held.value, others)
            except RejectedError as error:
                unusable[name] = str(error)
            else:
                wanted[name] = Wish(settings, Source.LOG)
        return wanted, unusable

    def _warn_of(self, shadowed: frozenset[ClusterName]) -> None:
        """Say once that the log lists a peer in vain."""
        for name in sorted(shadowed - self._shadowed):
            log.warning(
                "peer is listed twice; the settings count, not the log",
                peer=name,
                remedy="take it out of the settings file and reload; then the log's counts",
            )
        self._shadowed = shadowed

    def check(self, name: ClusterName, value: ListedPeer) -> None:
        """Hold a peer that somebody wants to list to the rules; raises RejectedError."""
        wanted, _ = self.wishes()
        others = [wish.settings for other, wish in wanted.items() if other != name]
        self._peer_settings(name, value, others)

    def _peer_settings(
        self, name: ClusterName, value: ListedPeer, others: Sequence[PeerSettings]
    ) -> PeerSettings:
        files_dir = self._settings.replication.listed_files_dir
        return peer_settings(name, value, self._settings, others, files_dir)
