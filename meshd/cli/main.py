"""The command `meshd`: its global options and its commands.

For: putting them together. Not for: any of them. Invariants: every command's errors end in
`failure`; only the command that is run is imported.
"""

from __future__ import annotations

from pathlib import Path

import click

from meshd import __version__
from meshd.cli.connection import Connection
from meshd.cli.failure import Commands
from meshd.cli.lazily import LazyGroup
from meshd.client import URL_DEFAULT, ClientTls

HOMES = {
    name: home
    for home, names in {
        "running": ("run", "demo", "config", "version"),
        "applying": ("apply",),
        "reading": ("get", "service", "status"),
        "looking_back": ("diff", "history"),
        "planning": ("plan",),
        "verifying": ("verify",),
        "tailing": ("events",),
        "watching": ("watch",),
        "permitting": ("policy",),
        "placing": ("cluster", "node"),
        "peering": ("peer",),
        "registering": ("register",),
        "probing": ("probe",),
        "operating": ("drain", "undrain", "operation", "migration"),
        "archiving": ("log",),
        "recovering": ("backup", "restore", "recover"),
        "securing": ("etcd",),
    }.items()
    for name in names
}
"""The module of each command."""


class Meshd(LazyGroup, Commands):
    """All commands."""


EPILOG = """\b
Exit status: 0 done; 1 failed (no answer, refused, time is up); 2 the command or its input is wrong.
MESHD_TOKEN holds the token where there is no --token-file.
"""

_FILE = click.Path(path_type=Path)


@click.group(
    cls=Meshd,
    homes=HOMES,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--url",
    envvar="MESHD_URL",
    default=URL_DEFAULT,
    show_default=True,
    help="Which meshd.",
)
@click.option("--token-file", envvar="MESHD_TOKEN_FILE", type=_FILE, help="File with the token.")
@click.option("--ca-file", envvar="MESHD_CA_FILE", type=_FILE, help="Who signs its certificate.")
@click.option("--cert-file", envvar="MESHD_CERT_FILE", type=_FILE, help="Our own certificate.")
@click.option("--key-file", envvar="MESHD_KEY_FILE", type=_FILE, help="Our certificate's key.")
@click.version_option(__version__, prog_name="meshd", message="%(prog)s %(version)s")
@click.pass_context
def cli(
    ctx: click.Context,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
) -> None:
    """One network out of many clusters: run a cluster's meshd, and ask a running one."""
    ctx.obj = Connection(url, token_file, ClientTls(ca_file, cert_file, key_file))


def main() -> None:
    """Run the command line, and end the process with its exit status."""
    cli(prog_name="meshd")
