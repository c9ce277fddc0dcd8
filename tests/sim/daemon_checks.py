"""What must hold of a mesh in ring 2 once it is at rest, and how to tell that it is.

For: each cluster against the raw etcds of all and what their witnesses saw. Not for: what must hold
at every step (`witness`). Invariant: what is expected is folded and derived here, from scratch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from meshd.core.derive import derive
from meshd.model.codec import LocalHead, decode_head, decode_local_head
from meshd.model.command import Outcome
from meshd.model.ids import ClusterName, Head
from meshd.model.keyspace import DEFAULT_AUDIENCE, LogKeys
from tests.mesh import Running
from tests.sim.tally import BrokenError, Tally
from tests.sim.witness import (
    KEYS,
    LOGS,
    Witness,
    WitnessedEtcd,
    cursor_in,
    manifest_in,
    raw_log,
    state_of,
    value_in,
)


@dataclass(slots=True)
class Asked:
    """One submission: outcome if it was acknowledged, None while its fate is unknown."""

    cluster: str
    cause: str
    epoch: int
    outcome: Outcome | None = None


@dataclass(slots=True)
class Meshd:
    """One supervised meshd. process: of its latest start."""

    running: Running | None = None
    task: asyncio.Task[None] | None = None
    process: int = 0


@dataclass(slots=True)
class Site:
    """A cluster: its etcd is always there, its meshds not. epoch: which history its etcd holds."""

    name: str
    etcd: WitnessedEtcd
    meshds: list[Meshd]
    epoch: int = 0
    backups: list[tuple[object, Witness]] = field(default_factory=list)

    @property
    def witness(self) -> Witness:
        """Who saw what is in the etcd now."""
        return self.etcd.witness

    def wipe(self, tally: Tally) -> None:
        """Begin another history."""
        self.epoch += 1
        self.etcd.witness = Witness(self.name, tally)
        self.etcd.wipe()

    def back_up(self) -> None:
        """Keep what is there now."""
        self.backups.append((self.etcd.backup(), self.witness.copy()))

    def restore(self) -> bool:
        """Go back to the last backup; false if there is none."""
        if not self.backups:
            return False
        self.epoch += 1
        backup, self.etcd.witness = self.backups.pop()
        self.etcd.restore(backup)  # type: ignore[arg-type]
        return True

    def check_replicas(self, sites: Sequence[Site]) -> None:
        """Every copy is whole, at every moment."""
        for other in sites:
            if other is not self:
                self.witness.check_replica(self.etcd, ClusterName(other.name))


def unrest(sites: Sequence[Site]) -> str:
    """What is still to come before everybody runs, has read all logs to their ends, and has stored
    what it read; '' for nothing.
    """
    for site in sites:
        for meshd in site.meshds:
            # The cheap questions first: most looks end with them.
            reason = _unready(meshd.running) if meshd.running else "it does not run"
            if reason:
                return f"{site.name}: {reason}"
    heads = {ClusterName(site.name): export_head(site.etcd) for site in sites}
    for site in sites:
        local = local_head(site.etcd)
        for meshd in site.meshds:
            reason = _behind(meshd.running, local.local if local else None, heads)
            if reason:
                return f"{site.name}: {reason}"
        if site.witness.leader not in {meshd.process for meshd in site.meshds}:
            return f"{site.name} has no leader"
        for name, head in heads.items():
            cursor = cursor_in(site.etcd, name)
            if name != site.name and (cursor is None or cursor.head != head):
                at = cursor.head.seq if cursor else None
                return f"{site.name}'s replica of {name} is at {at} of {head.seq if head else None}"
    return ""


def _unready(running: Running) -> str:
    """What one meshd knows itself not to be done with."""
    for peer in running.parts.node.peers:
        if peer.phase != "Ready":
            return f"{peer.name} is {peer.phase}: {peer.reason}"
        if peer.store.backlog_bytes:
            return f"{peer.store.backlog_bytes} bytes of {peer.name} wait to be stored"
    return ""


Heads = dict[ClusterName, Head | None]


def _behind(running: Running | None, local: Head | None, heads: Heads) -> str:
    """What one meshd has not read or written yet."""
    if running is None:
        return "it does not run"
    node = running.parts.node
    folded = node.projector.head(running.name)
    if folded != local:
        return f"its own log is folded up to {folded}, not {local}"
    vector = node.projector.vector()
    for name, head in heads.items():
        place = vector.get(name)
        if head is None or place is None or (place.log_id, place.seq) != (head.log_id, head.seq):
            return f"{name} is at {place}, not {head}"
    return ""


def check_site(site: Site, sites: Sequence[Site], asked: Sequence[Asked], tally: Tally) -> None:
    """Hold one cluster against the raw etcds of all; raises BrokenError."""
    hold = tally.hold
    for keys in LOGS:
        _check_log(site, keys, tally)
    _check_commands(site, asked, tally)
    site.check_replicas(sites)
    states = {}
    log_ids = {}
    for other in sites:
        name = ClusterName(other.name)
        log = other.witness.local if other is site else other.witness.export
        states[name], log_ids[name] = log.state, log.records[-1].log_id
        if other is not site:
            _check_copy(site, other, tally)
    own = ClusterName(site.name)
    expected = derive(own, states, log_ids)
    digests = set()
    for meshd in site.meshds:
        if meshd.running is None:
            raise BrokenError("I11", f"{site.name} does not run")
        projector = meshd.running.parts.node.projector
        served = projector.tables.keys()
        views = {key: projector.tables.view(key) for key in served}
        table = {key: view for key, view in views.items() if view is not None}
        hold("I18", table == expected, f"the tables of {own} are not what the logs give")
        digests.add(projector.tables.digest)
        for other in sites:
            theirs = projector.digest_as(ClusterName(other.name))
            for running in (its.running for its in other.meshds if its.running):
                is_equal = theirs == running.parts.node.projector.tables.digest
                hold("I15", is_equal, f"{own} and {other.name} have other digests")
    for view in expected.values():
        for backend in view.backends:
            owner = states[ClusterName(backend.cluster)]
            is_own = backend.name in owner.endpoints_of(view.key)
            hold("I8", is_own, f"{backend.cluster} never said {backend.name}")


def _check_log(site: Site, keys: LogKeys, tally: Tally) -> None:
    """What is stored is the end of what was written, behind a snapshot of what isn't there."""
    hold, history = tally.hold, site.witness.logs[keys.root]
    manifest = manifest_in(site.etcd, keys)
    trim_seq = manifest.trim.seq if manifest else 0
    stored = raw_log(site.etcd, keys)
    kept = [kv.value for kv in stored if (keys.seq_of(kv.key) or 0) > trim_seq]
    written = [record.raw for record in history.records if record.last_seq > trim_seq]
    hold("I1", kept == written, f"{keys.root!r} of {site.name} is not what was written")
    revisions = [kv.mod_revision for kv in stored]
    hold("I3", revisions == sorted(set(revisions)), f"the revisions of {keys.root!r} don't rise")
    local = local_head(site.etcd)
    head = (local.local if local else None) if keys == KEYS.local else export_head(site.etcd)
    hold("I3", head == history.records[-1].head, "the head is not at the last record")
    if manifest is not None:
        found = state_of(site.etcd, keys, manifest, ClusterName(site.name))
        is_it = found == history.until(manifest.head.seq)
        hold("I6", is_it, f"the snapshot of {keys.root!r} is another state")


def _check_copy(site: Site, other: Site, tally: Tally) -> None:
    """A replica is the peer's records, byte for byte, behind a snapshot of what came before."""
    name, history = ClusterName(other.name), other.witness.export
    cursor = cursor_in(site.etcd, name)
    if cursor is None:
        raise BrokenError("I6", f"{site.name} has no replica of {name}")
    keys = KEYS.replica(name, cursor.place)
    manifest = manifest_in(site.etcd, keys)
    trim_seq = manifest.trim.seq if manifest else 0
    stored = [kv.value for kv in raw_log(site.etcd, keys) if (keys.seq_of(kv.key) or 0) > trim_seq]
    written = [record.raw for record in history.records if record.last_seq > trim_seq]
    tally.hold("I6", stored == written, f"the replica of {name} differs")
    if manifest is not None:
        found = state_of(site.etcd, keys, manifest, name)
        is_it = found == history.until(manifest.head.seq)
        tally.hold("I6", is_it, f"the snapshot in the replica of {name} is another state")


def _check_commands(site: Site, asked: Sequence[Asked], tally: Tally) -> None:
    """Every acknowledged command is in the log, and none is there twice."""
    runs = site.witness.local.runs
    for one in asked:
        if one.cluster != site.name:
            continue
        seqs = runs.get(one.cause, [])
        is_one = seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
        tally.hold("I2", is_one, f"{one.cause} is in the log at {seqs}")
        outcome = one.outcome
        if outcome is not None and outcome.events and one.epoch == site.epoch:
            expected = list(range(outcome.first_seq, outcome.last_seq + 1))
            tally.hold("I1", seqs == expected, f"{one.cause} is at {seqs}: {outcome}")


def export_head(etcd: WitnessedEtcd) -> Head | None:
    """The head of the export log, if there is one."""
    raw = value_in(etcd, KEYS.export().head)
    return decode_head(raw, "head") if raw is not None else None


def local_head(etcd: WitnessedEtcd) -> LocalHead | None:
    """The head of the local log, if there is one."""
    raw = value_in(etcd, KEYS.local.head)
    if raw is None:
        return None
    head = decode_local_head(raw, "local head")
    if head.exports[DEFAULT_AUDIENCE] != export_head(etcd):
        raise BrokenError("I3", "the heads of local and export log disagree")
    return head
