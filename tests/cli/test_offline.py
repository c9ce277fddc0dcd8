"""Commands that need no meshd, and what is said when there is none."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click
import orjson
import pytest
import yaml

from meshd import __version__
from meshd.model.errors import FatalError
from meshd.settings import Settings
from tests.cli.conftest import Meshd


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "meshd.yaml"
    path.write_text("cluster: {name: east, id: 1}\n")
    return path


def test_version(meshd: Meshd) -> None:
    assert meshd("version").output.startswith(f"meshd {__version__} (Python ")
    assert meshd("--version").output == f"meshd {__version__}\n"


def test_help_tells_the_exit_statuses_and_every_command(meshd: Meshd) -> None:
    text = meshd("--help").output
    assert "Exit status: 0 done; 1 failed" in text
    for command in ("run", "demo", "apply", "get", "service", "peer", "events", "status", "config"):
        assert f"\n  {command} " in text
        assert meshd(command, "-h").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("get", "services", "-o", "xml"),
        ("apply",),
        ("get", "events", "--limit", "0"),
        ("events", "tail", "--from", "tomorrow"),
        ("events", "tail", "--since", "-5m", "--after", "a"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_exit_status_2(meshd: Meshd, arguments: tuple[str, ...]) -> None:
    result = meshd(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_good_settings(meshd: Meshd, config: Path) -> None:
    result = meshd("config", "check", "-c", str(config))
    assert (result.exit_code, result.output) == (0, "ok: cluster east, 0 peers\n")


def test_all_problems_of_bad_settings(meshd: Meshd, config: Path) -> None:
    result = meshd(
        "config", "check", "-c", str(config), "--set", "log.level=loud", "--set", "nonsense=1"
    )
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "Error: 2 problems:",
        "  flag --set nonsense: is not a setting (remove it or check its spelling)",
        (
            "  flag --set log.level: should be 'debug', 'info', 'warning' or 'error'; it is 'loud' "
            "(choose one of these)"
        ),
    ]


def test_one_problem_is_one_line(meshd: Meshd, config: Path) -> None:
    result = meshd("config", "check", "-c", str(config), "--set", "nonsense=1")
    assert result.stderr.count("\n") == 1


def test_the_configuration_is_named_by_the_environment_too(
    meshd: Meshd, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHD_CONFIG", str(config))
    monkeypatch.setenv("MESHD_CLUSTER__ZONE", "z")
    monkeypatch.setenv("MESHD_API__TOKEN", "s3cret")
    result = meshd("config", "show", "-o", "json")
    rows = {row["setting"]: row for row in orjson.loads(result.output)}
    assert rows["cluster.name"] == {
        "setting": "cluster.name",
        "value": "east",
        "from": f"{config}:1",
    }
    assert rows["cluster.zone"]["from"] == "environment MESHD_CLUSTER__ZONE"
    assert rows["api.token"]["value"] == "***"
    assert "s3cret" not in result.output
    assert yaml.safe_load(meshd("config", "show", "-o", "yaml").output) == list(rows.values())
    table = meshd("config", "show").output.splitlines()
    assert table[0].split() == ["SETTING", "VALUE", "FROM"]
    assert table[1].split() == ["cluster.name", "east", f"{config}:1"]
    assert all(line == line.rstrip() for line in table)


def test_run_starts_the_daemon_with_the_settings(
    meshd: Meshd, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Settings] = []

    async def run(settings: Settings, reread: Callable[[], Settings]) -> None:
        given.extend((settings, reread()))

    monkeypatch.setattr("meshd.daemon.run.run", run)
    arguments = ["--listen", "127.0.0.1:1", "--log-level", "debug", "--set", "log.format=console"]
    assert meshd("run", "--config", str(config), *arguments).exit_code == 0
    settings, again = given
    assert again == settings
    assert str(settings.api.listen) == "127.0.0.1:1"
    assert (settings.log.level, settings.log.format) == ("debug", "console")


def test_a_daemon_that_cannot_go_on_is_exit_status_1(
    meshd: Meshd, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*_: object) -> None:
        raise FatalError("port 7979 is taken")

    monkeypatch.setattr("meshd.daemon.run.run", run)
    result = meshd("run", "--config", str(config))
    assert (result.exit_code, result.stderr) == (1, "Error: port 7979 is taken\n")


def test_bad_settings_do_not_start_it(meshd: Meshd, tmp_path: Path) -> None:
    result = meshd("run", "--config", str(tmp_path / "nope.yaml"))
    assert result.exit_code == 2
    assert "No such file" in result.stderr


def test_ctrl_c_is_exit_status_130(
    meshd: Meshd, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("meshd.daemon.run.run", run)
    assert meshd("run", "--config", str(config)).exit_code == 130


@pytest.mark.parametrize("status", [0, 1])
def test_the_demo_is_delegated(meshd: Meshd, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    @click.command()
    @click.option("--check", is_flag=True)
    @click.pass_context
    def command(ctx: click.Context, check: bool) -> None:
        click.echo(f"check={check}")
        ctx.exit(status)

    module = SimpleNamespace(demo=command)
    monkeypatch.setattr("meshd.cli.running.import_module", lambda _: module)
    result = meshd("demo", "--check")
    assert (result.exit_code, result.output) == (status, "check=True\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("get", "services"),
        ("peer", "list"),
        ("events", "tail"),
        ("apply", "-f", "-"),
    ],
    ids=" ".join,
)
def test_a_meshd_that_is_not_there_is_one_line(
    meshd: Meshd, free_port: int, arguments: tuple[str, ...]
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    result = meshd("--url", url, *arguments, input="a: b")
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {url}/v1/")
    assert "can't be reached: Connection refused" in line
    assert "--url or MESHD_URL" in line


def test_waiting_for_one_that_never_comes_ends(meshd: Meshd, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    result = meshd("--url", url, "status", "--wait", "--timeout", "0.1")
    assert result.exit_code == 1
    assert f"waited 0.1 s in vain for {url} to be ready" in result.stderr


def test_an_url_that_is_none_is_bad_input(meshd: Meshd) -> None:
    result = meshd("--url", "7979", "status")
    assert result.exit_code == 2
    assert "write it like http://host:7979" in result.stderr


def test_a_token_file_without_a_token_is_named(meshd: Meshd, tmp_path: Path) -> None:
    result = meshd("--token-file", str(tmp_path / "nope"), "status")
    assert result.exit_code == 1
    assert str(tmp_path / "nope") in result.stderr


def test_all_files_that_cannot_be_read_are_named_and_nothing_is_sent(
    meshd: Meshd, tmp_path: Path
) -> None:
    result = meshd("apply", "-f", str(tmp_path / "a"), "-f", str(tmp_path), "-f", "-", "-f", "-")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 3
    assert "standard input can be read once" in result.stderr


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from meshd.cli.main import main; main()", "version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("meshd ")
