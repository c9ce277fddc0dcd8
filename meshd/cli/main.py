"""The command `meshd`: its global options and its commands.

For: putting them together. Not for: any of them. Invariant: every command's errors end in
`failure`.
"""

from __future__ import annotations

from pathlib import Path

import click

from meshd import __version__
from meshd.cli.applying import apply
from meshd.cli.archiving import log
from meshd.cli.connection import Connection
from meshd.cli.failure import Commands
from meshd.cli.looking_back import diff, history
from meshd.cli.operating import drain, migration, operation, undrain
from meshd.cli.peering import peer
from meshd.cli.permitting import policy
from meshd.cli.placing import cluster, node
from meshd.cli.planning import plan
from meshd.cli.probing import probe
from meshd.cli.reading import get, service, status
from meshd.cli.recovering import backup, recover, restore
from meshd.cli.registering import register
from meshd.cli.running import config, demo, run, version
from meshd.cli.securing import etcd
from meshd.cli.tailing import events
from meshd.cli.verifying import verify
from meshd.cli.watching import watch
from meshd.client import ClientTls
from meshd.settings.subjects import REST_HERE

EPILOG = """\b
Exit status: 0 done; 1 failed (no answer, refused, time is up); 2 the command or its input is wrong.
MESHD_TOKEN holds the token where there is no --token-file.
"""

_FILE = click.Path(path_type=Path)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--url",
    envvar="MESHD_URL",
    default=f"http://{REST_HERE}",
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


for command in (
    *(run, demo, apply, get, service, policy, cluster, node, peer, events, log, status),
    *(diff, history, plan, verify, watch, register, probe),
    *(drain, undrain, operation, migration),
    *(backup, restore, recover, etcd, config, version),
):
    cli.add_command(command)


def main() -> None:
    """Run the command line, and end the process with its exit status."""
    cli(prog_name="meshd")
