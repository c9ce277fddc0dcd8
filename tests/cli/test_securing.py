"""What `meshd etcd secure` says of options that can't be right, before it speaks to any etcd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Meshd = Callable[..., Result]
HERE = ("etcd", "secure", "--set", "cluster.name=east", "--set", "cluster.id=1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--peer", "we/st"), "'we/st' is no user's name"),
        (("--peer", ":eu"), "'' is no user's name"),
        (("--peer", "west:EU/"), "'EU/' is no audience's name"),
        (("--peer-password-file", "west"), "'west' is not NAME=FILE"),
        (("--peer-password-file", "west=file"), "west is no peer (add --peer west)"),
        (("--peer", "west", "--peer", "west:eu"), "west is taken by another user"),
    ],
)
def test_wrong_options_are_named(meshd: Meshd, options: tuple[str, ...], said: str) -> None:
    result = meshd(*HERE, *options)
    assert result.exit_code == 2, result.output
    assert said in result.output


def test_meshd_is_not_to_be_root(meshd: Meshd, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    root = ("--set", "etcd.username=root", "--set", f"etcd.password_file={file}")
    result = meshd(*HERE, *root)
    assert result.exit_code == 2, result.output
    assert "give meshd a user of its own" in result.output


def test_an_empty_password_file_is_named(meshd: Meshd, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    result = meshd(*HERE, "--root-password-file", str(empty))
    assert result.exit_code == 1
    assert f"{empty} has no secret on its first line" in result.output
