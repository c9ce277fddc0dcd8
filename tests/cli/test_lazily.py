"""A command is imported when it is run, and each is where it is looked for."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from meshd.cli.lazily import LazyGroup
from meshd.cli.main import cli
from meshd.cli.reading import get
from meshd.client import URL_DEFAULT
from meshd.settings.subjects import REST_HERE


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group in (cli, get) for name in group.homes],
)
def test_every_command_is_where_it_is_looked_for(group: LazyGroup, name: str) -> None:
    found = group.get_command(click.Context(group), name)
    assert found is not None
    assert found.name == name


GROUPS = {
    name: set(command.list_commands(context))
    for context in (click.Context(cli),)
    for name in cli.homes
    if isinstance(command := cli.get_command(context, name), click.Group)
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_has_all_its_commands_whatever_else_was_imported(name: str) -> None:
    """Here everything is imported, there what is needed to run one command of the group."""
    code = (
        "import click, meshd.cli.main as main\n"
        "context = click.Context(main.cli)\n"
        f"print(*main.cli.get_command(context, {name!r}).list_commands(context))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == GROUPS[name]


def test_asking_does_not_import_what_runs_a_cluster() -> None:
    """Settings, states and etcd take longer to import than asking takes."""
    code = (
        "import sys, meshd.cli.main, meshd.cli.reading, meshd.cli.verifying\n"
        "heavy = ('meshd.settings', 'meshd.runtime', 'meshd.edges', 'grpc', 'pydantic')\n"
        "print(*(name for name in heavy if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_by_default_it_asks_where_a_meshd_listens_by_default() -> None:
    assert f"http://{REST_HERE}" == URL_DEFAULT
