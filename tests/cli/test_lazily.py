"""A command is imported when it is run, and each is where it is looked for."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from meshd.cli.main import HOMES, cli
from meshd.client import URL_DEFAULT
from meshd.settings.subjects import REST_HERE


@pytest.mark.parametrize("name", HOMES)
def test_every_command_is_where_it_is_looked_for(name: str) -> None:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    assert found.name == name


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
