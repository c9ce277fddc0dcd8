"""`meshd log`: a cluster's logs as files, and whether they are whole.

For: people who keep, check or read a log without a running meshd. Not for: the file's bytes
(`model.archive`) or what makes a log whole (`core.audit`). Invariants: nothing is written to an
etcd; a file is there whole or not at all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import click
import orjson

from meshd.cli import columns
from meshd.cli.failure import BadInput, Failure
from meshd.cli.output import Output, output_option, show_data, show_list
from meshd.cli.running import settings_options
from meshd.cli.tailing import print_event
from meshd.client import StreamEvent
from meshd.core.audit import Audit
from meshd.core.fold import fold_record
from meshd.core.past import time_text
from meshd.core.skipping import is_skipped
from meshd.core.state import ClusterState, Held
from meshd.core.telling import cloud_event
from meshd.edges.system.files import whole_file
from meshd.model.archive import ArchiveReader, Entry, LogName, Origin
from meshd.model.control import SEQ_MAX
from meshd.model.errors import CorruptError
from meshd.model.event import Told
from meshd.model.ids import Position, Seq
from meshd.model.keyspace import Keyspace
from meshd.model.schema import to_data
from meshd.runtime.archiving import archived, audit_of
from meshd.runtime.stored_log import StoredLog, open_log, stored_skip
from meshd.settings import load

PROGRESS_EVENTS = 100_000
"""How often an export says how far it is."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Etcd:
    """The log of the cluster's own etcd that the options mean."""

    config: Path | None
    overrides: Sequence[str]
    log: LogName

    @property
    def is_given(self) -> bool:
        """Whether there is anything that says which etcd."""
        return self.config is not None or bool(self.overrides)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[StoredLog]:
        """Find the log; nothing but the settings and the etcd itself is needed."""
        from meshd.daemon.parts import own_target
        from meshd.edges.etcd import connect

        settings = load(self.config, os.environ, self.overrides)
        kv = connect(own_target(settings.etcd))
        try:
            keyspace = Keyspace(settings.etcd.prefix)
            skip = await stored_skip(kv, keyspace, self.log)
            yield await open_log(kv, keyspace, self.log, skip)
        finally:
            await kv.close()


def log_option(command: Function) -> Function:
    """Add --log."""
    return click.option(
        "--log",
        "log_name",
        default="local",
        show_default=True,
        metavar="LOG",
        callback=lambda _context, _option, value: LogName.parse(value),
        help="local, export/AUDIENCE (export/mesh) or replica/PEER.",
    )(command)


def source_options(command: Function) -> Function:
    """Add the options that say which log of which etcd, as the command's argument `source`."""

    @wraps(command)
    def with_source(
        *, config: Path | None, overrides: Sequence[str], log_name: LogName, **more: object
    ) -> object:
        return command(source=Etcd(config, overrides, log_name), **more)

    return cast("Function", settings_options(log_option(with_source)))


_FILE = click.Path(path_type=Path)
_SEQ = click.IntRange(min=1)


@click.group("log")
def log() -> None:
    """Keep logs as files, check them, and read them. No meshd need run; its etcd must for -c."""


@log.command()
@source_options
@click.option("--from", "first", type=_SEQ, help="Begin with the record of this seq.")
@click.option("-o", "--output", "target", type=_FILE, required=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def export(source: Etcd, first: int | None, target: Path, force: bool) -> None:
    """Write a log from the cluster's etcd into a file, as far as it goes now."""
    if target.exists() and not force:
        raise BadInput((f"{target} is there already (--force replaces it)",))
    audit = asyncio.run(_export(source, first, target))
    span = audit.span
    click.echo(
        f"{target}: {source.log} of {audit.speaker}, seq {span.first_seq} to {span.last_seq},"
        f" {span.events} events, {span.size_bytes} bytes as {target.stat().st_size}",
        err=True,
    )


async def _export(source: Etcd, first: int | None, target: Path) -> Audit:
    async with source.open() as stored:
        return await write_archive(stored, target, first)


async def write_archive(stored: StoredLog, target: Path, first: int | None = None) -> Audit:
    """Write a log, or from a seq on, into a file; returns what was checked on the way."""
    audit, told = audit_of(stored), 0
    with new_file(target) as file:
        async with aclosing(archived(stored, audit, first)) as pieces:
            async for piece in pieces:
                file.write(piece)
                if audit.span.events - told >= PROGRESS_EVENTS:
                    told = audit.span.events
                    click.echo(f"seq {audit.span.last_seq} of {stored.head.seq}", err=True)
    return audit


@contextmanager
def opened(path: Path) -> Iterator[ArchiveReader]:
    """Read an archive; what the disk does is a Failure, what our own reader does is not."""
    try:
        with path.open("rb") as file:
            yield ArchiveReader(file.read, str(path))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure((f"{path}: {error.strerror}",)) from None


@contextmanager
def new_file(target: Path) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all; what the disk does is a Failure."""
    try:
        with whole_file(target) as file:
            yield file
    except OSError as error:
        raise Failure((f"{target}: {error.strerror}",)) from None


@log.command()
@click.argument("files", nargs=-1, type=_FILE)
@source_options
@output_option
def verify(source: Etcd, files: Sequence[Path], output: Output) -> None:
    """Check that FILES, one behind the other, are an unbroken piece of one log; or, without FILES,
    that the log in the cluster's etcd is. Exit status 1 if not.
    """
    checked: list[dict[str, object]] = []
    try:
        if files:
            _verify_files(files, checked)
        elif source.is_given:
            asyncio.run(_verify_etcd(source, checked))
        else:
            raise BadInput(("say what: FILES, or -c for the log in a cluster's etcd",))
    finally:
        if checked:
            show_list(output, checked, columns.CHECKED)


def _verify_files(files: Sequence[Path], checked: list[dict[str, object]]) -> None:
    audit: Audit | None = None
    for path in files:
        with opened(path) as reader:
            origin = reader.origin
            is_first = audit is None
            audit = audit or Audit(origin.speaker, origin.log_id)
            audit.skip = origin.skip
            audit.begin(origin.speaker, origin.log_id, str(path))
            with _noting(checked, str(path), origin, audit):
                begin_audit(audit, reader, str(path), is_first=is_first)
                for entry in reader.entries():
                    audit.take(entry)


def begin_audit(audit: Audit, reader: ArchiveReader, where: str, *, is_first: bool = True) -> None:
    """Take the snapshot that an archive begins with; behind another file it says nothing new."""
    parts = reader.parts()
    if reader.snapshot is not None and is_first:
        audit.begin_with(reader.snapshot, parts, where)
    for _ in parts:
        continue


async def _verify_etcd(source: Etcd, checked: list[dict[str, object]]) -> None:
    async with source.open() as stored:
        origin = stored.origin
        audit = Audit(origin.speaker, origin.log_id, skip=origin.skip)
        with _noting(checked, "etcd", origin, audit):
            if stored.snapshot is not None and stored.first_seq > 1:
                parts = [part async for part in stored.parts()]
                audit.begin_with(stored.snapshot, parts, str(source.log))
            async with aclosing(stored.entries(stored.first_seq)) as entries:
                async for entry in entries:
                    audit.take(entry)
            if audit.at is not None and audit.at != stored.head:
                raise CorruptError(f"{source.log} seq {audit.at.seq}", "is not what its head says")


@contextmanager
def _noting(
    checked: list[dict[str, object]], name: str, origin: Origin, audit: Audit
) -> Iterator[None]:
    """Note what was checked, also if it ended with an error."""
    verdict = "ok"
    try:
        yield
    except CorruptError as error:
        verdict = str(error)
        raise
    finally:
        span = audit.span
        checked.append(
            {
                "name": name,
                "log": f"{origin.log} of {origin.cluster}",
                "log_id": origin.log_id,
                "first_seq": span.first_seq,
                "last_seq": span.last_seq,
                "records": span.records,
                "events": span.events,
                "bytes": span.size_bytes,
                "first_time": time_text(span.first_ms) if span.records else "",
                "last_time": time_text(span.last_ms) if span.records else "",
                "verdict": verdict,
            }
        )


@log.command()
@click.argument("file", required=False, type=_FILE)
@source_options
@click.option("--from", "first", default=1, type=_SEQ, help="Begin with this seq.")
@click.option("--to", "last", default=SEQ_MAX, type=_SEQ, help="End with this seq.")
@click.option("--state", "is_state", is_flag=True, help="Show what the events come to instead.")
@output_option
def cat(
    file: Path | None,
    source: Etcd,
    first: int,
    last: int,
    is_state: bool,
    output: Output,
) -> None:
    """Print the events of FILE, or of the log in the cluster's etcd."""
    if is_state and first > 1:
        raise BadInput(("--state needs all events: leave out --from",))
    wanted = Wanted(first, last, is_state, output)
    if file is not None:
        audit = _cat_file(file, wanted)
    elif source.is_given:
        audit = asyncio.run(_cat_etcd(source, wanted))
    else:
        raise BadInput(("say what: FILE, or -c for the log in a cluster's etcd",))
    if is_state:
        if audit.span.first_seq > 1 and audit.snapshot is None:
            click.echo(f"what was before seq {audit.span.first_seq} is not in it", err=True)
        _show_state(audit.state, output)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events to show, and how."""

    first: int
    last: int
    is_state: bool
    output: Output

    def check(self, audit: Audit) -> None:
        """Refuse what a log that begins with a snapshot can't say any more."""
        known_seq = audit.snapshot.head.seq if audit.snapshot else 0
        if self.is_state and self.last < known_seq:
            raise BadInput(
                (f"the log was cut: --state is known from seq {known_seq} on (--to is before)",)
            )

    def take(self, audit: Audit, entry: Entry) -> bool:
        """Check a record and show what is wanted of it; returns whether there may be more."""
        audit.take(entry)
        record = entry.record
        events = record.events[: max(0, self.last - record.first_seq + 1)]
        known_seq = audit.snapshot.head.seq if audit.snapshot else 0
        if self.is_state and record.last_seq <= known_seq:
            return True
        if self.is_state and events:
            if not is_skipped(audit.skip, record):
                fold_record(audit.state, replace(record, events=events), audit.speaker)
            return record.last_seq < self.last
        for seq, event in enumerate(events, record.first_seq):
            if seq >= self.first:
                place = Position(audit.speaker, audit.log_id, Seq(seq))
                fields = cloud_event(Told(place, record.time_ms, event))
                text = orjson.dumps(fields).decode()
                print_event(StreamEvent(str(place), event.type, text), self.output)
        return record.last_seq < self.last


def _cat_file(path: Path, wanted: Wanted) -> Audit:
    with opened(path) as reader:
        origin = reader.origin
        audit = Audit(origin.speaker, origin.log_id, is_folding=False, skip=origin.skip)
        begin_audit(audit, reader, str(path))
        wanted.check(audit)
        for entry in reader.entries():
            if not wanted.take(audit, entry):
                break
    return audit


async def _cat_etcd(source: Etcd, wanted: Wanted) -> Audit:
    async with source.open() as stored:
        audit = audit_of(stored)
        if wanted.is_state and stored.snapshot is not None and stored.first_seq > 1:
            parts = [part async for part in stored.parts()]
            audit.begin_with(stored.snapshot, parts, str(source.log))
        wanted.check(audit)
        async with aclosing(stored.entries(max(wanted.first, stored.first_seq))) as entries:
            async for entry in entries:
                if not wanted.take(audit, entry):
                    break
        return audit


def _show_state(state: ClusterState, output: Output) -> None:
    """Show a state by kind and key, as the events told it."""
    found: dict[str, dict[str, Held[Any]]] = {
        "cluster": {state.info.value.name: state.info} if state.info else {},
        "service": {str(key): held for key, held in state.services.items()},
        "endpoint": {
            f"{key}/{name}": held
            for key, endpoints in state.endpoints.items()
            for name, held in endpoints.items()
        },
    }
    # Many clusters say nothing of nodes, of identities, or of policies.
    found |= {"node": dict(state.nodes.items())} if state.nodes else {}
    numbers = {str(number): held for number, held in state.identities.items()}
    found |= {"identity": numbers} if numbers else {}
    policies = {str(key): held for key, held in state.policies.items()}
    found |= {"policy": policies} if policies else {}
    # Most logs list no peers, and no export log does.
    found |= {"peer": dict(state.peers.items())} if state.peers else {}
    found |= {"skip": dict(state.skips.items())} if state.skips else {}
    if output is Output.TABLE:
        rows = [(kind, key, held) for kind, items in found.items() for key, held in items.items()]
        show_list(output, rows, columns.STATE)
    else:
        data = {
            kind: {key: to_data(held.value) for key, held in items.items()}
            for kind, items in found.items()
        }
        show_data(output, data)
