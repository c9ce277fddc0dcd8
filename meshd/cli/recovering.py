"""`meshd backup`, `meshd restore`, `meshd recover`: a cluster's logs out of its etcd, and back.

For: people whose etcd is gone, or will be. Not for: a running mesh, which needs none of it.
Invariants: `backup` writes nothing to an etcd; `restore` and `recover` write only to an etcd that
holds no meshd cluster, and only what was checked to its end.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from meshd.cli.archiving import begin_audit, new_file, opened, write_archive
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.failure import BadInput, Failure
from meshd.cli.running import settings_options
from meshd.client import Client
from meshd.core.audit import Audit
from meshd.core.past import time_text
from meshd.core.standpoint import as_told_to, written
from meshd.core.state import ClusterState
from meshd.model.archive import LogName
from meshd.model.codec import LocalHead
from meshd.model.ids import ClusterName, Head, Seq
from meshd.model.keyspace import DEFAULT_AUDIENCE, Keyspace
from meshd.runtime.bootstrap import Identity
from meshd.runtime.founding import Kept, found
from meshd.runtime.ports import Kv
from meshd.runtime.stored_log import LOCAL, StoredLog, open_log
from meshd.settings import Settings, load

SUFFIX = ".meshd-log"
EXPORTED = "export-"
"""What the file of an export log begins with; then comes its audience."""

_DIR = click.Path(path_type=Path, file_okay=False)


@asynccontextmanager
async def _etcd(settings: Settings) -> AsyncIterator[Kv]:
    from meshd.daemon.parts import own_target
    from meshd.edges.etcd import connect

    kv = connect(own_target(settings.etcd))
    try:
        yield kv
    finally:
        await kv.close()


@click.command()
@settings_options
@click.option("-o", "--output", "target", type=_DIR, required=True, help="A new folder for it.")
def backup(config: Path | None, overrides: Sequence[str], target: Path) -> None:
    """Write all that the cluster's own logs say into a folder; meshd may run meanwhile."""
    settings = load(config, os.environ, overrides)
    try:
        target.mkdir(parents=True)
    except FileExistsError:
        raise BadInput((f"{target} is there already; name a new folder",)) from None
    except OSError as error:
        raise Failure((f"{target}: {error.strerror}",)) from None
    asyncio.run(_backup(settings, target))


async def _backup(settings: Settings, target: Path) -> None:
    """The export logs only as far as the local log says that they go: they belong together."""
    keyspace = Keyspace(settings.etcd.prefix)
    async with _etcd(settings) as kv:
        local = await open_log(kv, keyspace, LOCAL)
        opened_logs: dict[str, StoredLog] = {}
        while new := sorted(_exports(local).keys() - opened_logs.keys()):
            # Opened before the local log, whose heads are then none of a time before they were.
            for audience in new:
                opened_logs[audience] = await open_log(kv, keyspace, LogName("export", audience))
            local = await open_log(kv, keyspace, LOCAL)
        heads = _exports(local)
        exports = [replace(log, head=heads[name]) for name, log in opened_logs.items()]
        for stored in (local, *exports):
            path = target / _file_of(stored.origin.log)
            await write_archive(stored, path)
            click.echo(f"{path}: {stored.origin.log}, to seq {stored.head.seq}")


def _exports(local: StoredLog) -> Mapping[str, Head]:
    """The heads of the export logs that belong to a local log."""
    heads = local.reader.local_head
    return heads.exports if heads is not None else {}


def _file_of(log: LogName) -> str:
    return f"{EXPORTED if log.owner else ''}{log.owner or log.kind}{SUFFIX}"


def _backed_up(folder: Path) -> set[str]:
    """The audiences whose export logs are in a backup."""
    files = folder.glob(f"{EXPORTED}*{SUFFIX}")
    return {file.name.removeprefix(EXPORTED).removesuffix(SUFFIX) for file in files}


@dataclass(frozen=True, slots=True)
class _Read:
    """An archive that was checked to its end."""

    audit: Audit
    head: Head

    @property
    def kept(self) -> Kept:
        return Kept(self.audit.state, self.head)


def _read(path: Path, settings: Settings) -> _Read:
    """Read and check an archive; it must be of the cluster that the settings name."""
    with opened(path) as reader:
        origin = reader.origin
        audit = Audit(origin.speaker, origin.log_id, skip=origin.skip)
        begin_audit(audit, reader, str(path))
        for entry in reader.entries():
            audit.take(entry)
        head = audit.end(str(path))
    if audit.snapshot is None and audit.span.first_seq > 1:
        raise Failure(
            (f"{path} begins with seq {audit.span.first_seq}: what was before is missing",)
        )
    cluster, info = settings.cluster, audit.state.info
    if origin.speaker != cluster.name or (info and info.value.id != cluster.id):
        number = info.value.id if info else "?"
        raise Failure(
            (
                f"{path} is of cluster {origin.speaker} (id {number})",
                f"the settings name cluster {cluster.name} (id {cluster.id})",
            )
        )
    return _Read(audit, head)


@click.command()
@settings_options
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
def restore(config: Path | None, overrides: Sequence[str], folder: Path) -> None:
    """Found the cluster's logs anew in an empty etcd, from a backup. Stop its meshds first."""
    settings = load(config, os.environ, overrides)
    local = _read(folder / _file_of(LOCAL), settings)
    info = local.audit.state.info
    audiences = written(info.value if info else None) | _backed_up(folder)
    exports = {
        audience: _read(folder / _file_of(LogName("export", audience)), settings).kept
        for audience in sorted(audiences)
    }
    heads = asyncio.run(_found(settings, local.kept, exports))
    _say(local, heads)


@click.command()
@settings_options
@click.option(
    "--from",
    "source",
    required=True,
    metavar="URL|FILE",
    help="A peer's meshd, or an archive of its replica.",
)
@click.option(
    "--audience",
    help="Which of the cluster's export logs the peer read; mesh if the cluster has no other.",
)
@pass_connection
def recover(
    connection: Connection,
    config: Path | None,
    overrides: Sequence[str],
    source: str,
    audience: str | None,
) -> None:
    """Found the cluster's logs anew in an empty etcd, from what a peer has kept of its export log.

    What was never exported doesn't come back, nor what was to other audiences only. MESHD_TOKEN or
    --token-file is for the peer's REST.
    """
    settings = load(config, os.environ, overrides)
    known = {DEFAULT_AUDIENCE, *settings.cluster.audiences}
    if audience is None and len(known) > 1:
        # A replica doesn't name its audience; what it holds must be offered to nobody else.
        raise BadInput((f"say --audience, which the peer read: {', '.join(sorted(known))}",))
    audience = audience or DEFAULT_AUDIENCE
    if audience not in known:
        raise BadInput((f"cluster.audiences doesn't name {audience!r}; add it, as it was",))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(source)
        if "://" in source:
            path = Path(folder) / "replica.meshd-log"
            peer = Connection(source, connection.token_file, connection.tls)
            log = LogName("replica", settings.cluster.name)
            peer.talk(lambda client: _fetch(client, log, path))
        read = _read(path, settings)
    local = Kept(as_told_to(read.audit.state, audience), read.head)
    exports = {DEFAULT_AUDIENCE: _introduced(read), audience: read.kept}
    heads = asyncio.run(_found(settings, local, exports))
    _say(read, heads)
    click.echo("only what was exported came back; services that weren't are to be defined again")


def _introduced(read: _Read) -> Kept:
    """An export log that says who the cluster is and nothing else."""
    info = read.audit.state.info
    head = Head.genesis(read.head.log_id)
    if info is None:
        return Kept(ClusterState(), head)
    state = ClusterState(seq=Seq(1), info=replace(info, seq=Seq(1)), time_ms=info.time_ms)
    return Kept(state, replace(head, seq=Seq(1)))


async def _fetch(client: Client, log: LogName, path: Path) -> None:
    with new_file(path) as file:
        async with client.archive(str(log)) as pieces:
            async for piece in pieces:
                file.write(piece)


async def _found(settings: Settings, local: Kept, exports: Mapping[str, Kept]) -> LocalHead:
    from meshd.edges.system import SystemChance, SystemClock

    identity = Identity(ClusterName(settings.cluster.name), settings.cluster.id)
    doors = SystemClock(), SystemChance()
    keyspace = Keyspace(settings.etcd.prefix)
    async with _etcd(settings) as kv:
        return await found(kv, keyspace, identity, local, exports, doors)


def _say(read: _Read, heads: LocalHead) -> None:
    """Say what is there again, and name what is lost."""
    state, old = read.audit.state, read.head
    endpoints = sum(map(len, state.endpoints.values()))
    when = time_text(state.time_ms)
    click.echo(
        f"{len(state.services)} services and {endpoints} endpoints, as of seq {old.seq}, {when}"
    )
    click.echo(f"log {old.log_id} goes on as log {heads.local.log_id}")
    click.echo(f"whatever was acknowledged after seq {old.seq} of the old log is lost")
