import getpass

import click
import pytest
from click.testing import CliRunner

from meshd.cli.connection import Connection
from meshd.cli.failure import Commands, clean
from meshd.client import ClientError
from meshd.model.errors import Problem, RejectedError, TransientError


def outcome(error: BaseException) -> tuple[int, str]:
    """What a command that raises this ends with."""

    @click.group(cls=Commands)
    def commands() -> None:
        pass

    @commands.command()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(commands, ["fail"])
    return result.exit_code, result.stderr


def refused(status: int, **body: object) -> ClientError:
    return ClientError("http://a/v1/x", status, "No", body=body)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            refused(401),
            (1, "Error: http://a/v1/x: No (401) (give the token with --token-file or MESHD_TOKEN)"),
        ),
        (
            refused(503, detail="etcd is away"),
            (1, "Error: http://a/v1/x: No (503): etcd is away (try again later)"),
        ),
        (refused(404, detail="no such"), (1, "Error: http://a/v1/x: No (404): no such")),
        (refused(413), (2, "Error: http://a/v1/x: No (413)")),
        (
            refused(422, detail="long", problems=[{"where": "a", "what": "b", "remedy": "c"}]),
            (2, "Error: http://a/v1/x: No (422)\n  a: b (c)"),
        ),
        (TransientError("later"), (1, "Error: later")),
        (RejectedError((Problem("a", "b", "c"),)), (2, "Error: a: b (c)")),
        (
            RejectedError((Problem("a", "b"), Problem("c", "d"))),
            (2, "Error: 2 problems:\n  a: b\n  c: d"),
        ),
        (KeyboardInterrupt(), (130, "")),
    ],
    ids=range(9),
)
def test_every_error_ends_in_its_status_and_a_remedy(
    error: BaseException, expected: tuple[int, str]
) -> None:
    status, text = outcome(error)
    assert (status, text.removesuffix("\n")) == expected


def test_a_bug_is_not_hidden() -> None:
    assert isinstance(CliRunner().invoke(_broken(), ["fail"]).exception, ZeroDivisionError)


def _broken() -> click.Group:
    @click.group(cls=Commands)
    def commands() -> None:
        pass

    @commands.command()
    def fail() -> None:
        raise ZeroDivisionError

    return commands


def test_what_a_server_says_cannot_move_the_cursor() -> None:
    _, text = outcome(refused(400, detail="\x1b[2J\x9b2J\rgone"))
    assert not set("\x1b\x9b\r") & set(text)
    assert clean("täst\n\tok") == "täst\n\tok"


def test_who_has_no_name_is_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert Connection("http://a").target().actor == "cli"
    monkeypatch.setattr(getpass, "getuser", lambda: "jürgen\n" + "x" * 99)
    assert Connection("http://a").target().actor == "cli:jrgen" + "x" * 59


def test_a_token_file_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text("from-file\n")
    monkeypatch.setenv("MESHD_TOKEN", " from-environment ")
    assert Connection("http://a", file).target().token == "from-file"
    assert Connection("http://a").target().token == "from-environment"
