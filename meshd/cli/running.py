"""Commands that need no running meshd: `run`, `demo`, `config`, `version`.

For: starting things, and looking at settings. Not for: settings' rules (`meshd.settings`).
Invariant: what is heavy to import is imported by the command that needs it.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click

from meshd import __version__
from meshd.cli import columns
from meshd.cli.output import Output, output_option, show_list
from meshd.settings import Settings, describe, load, read

Function = TypeVar("Function", bound=Callable[..., Any])


def settings_options(command: Function) -> Function:
    """Add the options that say what the settings are."""
    with_set = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SETTING=VALUE",
        help="Set one setting, like etcd.endpoints=a:2379,b:2379. May be given several times.",
    )(command)
    return click.option(
        "-c",
        "--config",
        envvar="MESHD_CONFIG",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration file; without one there are only MESHD_... variables and --set.",
    )(with_set)


@click.command()
@settings_options
@click.option("--listen", metavar="HOST:PORT", help="Short for --set api.listen=...")
@click.option("--log-level", metavar="LEVEL", help="Short for --set log.level=...")
@click.option("--log-format", metavar="FORMAT", help="Short for --set log.format=...")
def run(
    config: Path | None,
    overrides: Sequence[str],
    listen: str | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run one cluster's meshd, until SIGTERM or Ctrl-C. On SIGHUP it reads its settings again, and
    follows the peers that they list now.
    """
    named = {"api.listen": listen, "log.level": log_level, "log.format": log_format}
    short = [f"{setting}={value}" for setting, value in named.items() if value is not None]

    def read_settings() -> Settings:
        return load(config, os.environ, [*overrides, *short])

    settings = read_settings()
    from meshd.daemon.run import run as run_daemon

    asyncio.run(run_daemon(settings, read_settings))


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def demo(ctx: click.Context, arguments: Sequence[str]) -> None:
    """Run three clusters on this machine, send requests, break things, and watch."""
    command = import_module("meshd.demo.command").demo
    with command.make_context("demo", list(arguments), parent=ctx.parent) as inner:
        command.invoke(inner)


@click.group()
def config() -> None:
    """Look at settings."""


@config.command("check")
@settings_options
def check_config(config: Path | None, overrides: Sequence[str]) -> None:
    """Check the settings, and name everything that is wrong."""
    settings = load(config, os.environ, overrides)
    click.echo(f"ok: cluster {settings.cluster.name}, {len(settings.peers)} peers")


@config.command("show")
@settings_options
@output_option
def show_config(config: Path | None, overrides: Sequence[str], output: Output) -> None:
    """Show every setting, its value, and where that came from. Secrets are shown as ***."""
    rows = describe(read(config, os.environ, overrides))
    items = [{"setting": row.setting, "value": row.value, "from": row.origin} for row in rows]
    show_list(output, items, columns.SETTINGS)


@click.command()
def version() -> None:
    """Show the version."""
    click.echo(f"meshd {__version__} (Python {platform.python_version()})")
