"""`meshd etcd secure`: who may do what in this cluster's etcd.

For: options to a request, and what was done as a table. Not for: deciding or doing it
(`edges.etcd`). Invariants: a password comes from a file and is never shown; without root's right
nothing is changed.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshd.cli.output import Column, Output, output_option, print_table, show_data
from meshd.cli.running import settings_options
from meshd.model.errors import Problem, RejectedError
from meshd.model.ids import is_dns_label
from meshd.model.keyspace import DEFAULT_AUDIENCE, Keyspace
from meshd.settings import EtcdSettings, load, secret_text

if TYPE_CHECKING:
    from meshd.edges.etcd.access import PeerAccess
    from meshd.edges.etcd.secure import Request

_FILE = click.Path(path_type=Path)
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")
_STEPS = (
    Column("ACTION", itemgetter("action")),
    Column("USER OR ROLE", itemgetter("subject")),
    Column("WHAT", itemgetter("detail")),
)


@click.group()
def etcd() -> None:
    """Look after this cluster's etcd."""


@etcd.command()
@settings_options
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME[:AUDIENCE]",
    help="A user that may read the audience's export log (default: mesh). May be repeated.",
)
@click.option("--root-password-file", type=_FILE, metavar="FILE", help="Password of etcd's root.")
@click.option(
    "--own-password-file",
    type=_FILE,
    metavar="FILE",
    help="Password of meshd's own user; default: what etcd.password_file says.",
)
@click.option(
    "--peer-password-file",
    "peer_files",
    multiple=True,
    metavar="NAME=FILE",
    help="Password of a peer's user. May be repeated.",
)
@click.option(
    "--no-password",
    is_flag=True,
    help="Who has no password file is recognised by the name (CN) of its client certificate.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@output_option
def secure(  # noqa: PLR0913, PLR0917 one for each option
    config: Path | None,
    overrides: Sequence[str],
    peers: Sequence[str],
    root_password_file: Path | None,
    own_password_file: Path | None,
    peer_files: Sequence[str],
    no_password: bool,
    dry_run: bool,
    output: Output,
) -> None:
    """Set up users, roles and authentication in the etcd of the settings.

    meshd's own user may read and write below etcd.prefix, a peer's may read the descriptor and its
    audience's export log, and nobody else may do anything. A second run changes nothing.
    """
    settings = load(config, os.environ, overrides).etcd
    from meshd.daemon.parts import own_target
    from meshd.edges.etcd.secure import secure as secure_etcd

    files = {"root": root_password_file, **_named_files(peer_files)}
    request = _request(settings, _peers(peers), files, own_password_file, no_password=no_password)
    done = asyncio.run(secure_etcd(own_target(settings), request, dry_run=dry_run))
    rows = [
        {"action": str(step.action), "subject": step.subject, "detail": step.detail}
        for step in done.steps
    ]
    if output is not Output.TABLE:
        answer = {"own_user": request.own_user, "etcd": done.version, "dry_run": dry_run}
        told = {"changes": rows, "holes": list(done.holes), "remedy": done.remedy}
        show_data(output, answer | told)
    elif rows:
        print_table(rows, _STEPS)
    click.echo(_summary(len(rows), dry_run=dry_run), err=True)
    for hole in done.holes:
        click.echo(f"Warning: in etcd {done.version} {hole}", err=True)
    if done.remedy:
        click.echo(f"Against what roles can't prevent: {done.remedy}", err=True)
    if not settings.username and not no_password:
        click.echo(
            f"meshd itself needs etcd.username={request.own_user} and its password", err=True
        )


def _summary(count: int, *, dry_run: bool) -> str:
    if not count:
        return "nothing to change: users, roles and authentication are as they should be"
    return f"{count} changes would be made" if dry_run else f"{count} changes made and read back"


def _request(
    settings: EtcdSettings,
    peers: tuple[PeerAccess, ...],
    files: dict[str, Path | None],
    own_file: Path | None,
    *,
    no_password: bool,
) -> Request:
    from meshd.edges.etcd.access import OWN_USER
    from meshd.edges.etcd.secure import Request

    strangers = files.keys() - {"root"} - {peer.user for peer in peers}
    if strangers:
        raise RejectedError(
            tuple(
                Problem("--peer-password-file", f"{name} is no peer", f"add --peer {name}")
                for name in sorted(strangers)
            )
        )
    own_user = settings.username or OWN_USER
    passwords = {name: secret_text(file) for name, file in files.items() if file is not None}
    own = secret_text(own_file or settings.password_file, settings.password)
    if own:
        passwords[own_user] = own
    return Request(Keyspace(settings.prefix), own_user, peers, passwords, no_password)


def _peers(texts: Sequence[str]) -> tuple[PeerAccess, ...]:
    from meshd.edges.etcd.access import PeerAccess

    peers = []
    for text in texts:
        name, _, audience = text.partition(":")
        if not _USER.match(name):
            raise RejectedError((Problem("--peer", f"{name!r} is no user's name"),))
        if not is_dns_label(audience or DEFAULT_AUDIENCE):
            raise RejectedError((Problem("--peer", f"{audience!r} is no audience's name"),))
        peers.append(PeerAccess(name, audience or DEFAULT_AUDIENCE))
    return tuple(peers)


def _named_files(texts: Sequence[str]) -> dict[str, Path | None]:
    files: dict[str, Path | None] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise RejectedError((Problem("--peer-password-file", f"{text!r} is not NAME=FILE"),))
        files[name] = Path(file)
    return files
