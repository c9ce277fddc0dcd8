"""The commands in docs/streams.md print what the page says, of a meshd that publishes to a broker.

`pytest tests/e2e/test_streams_page.py --write-docs` writes the page anew with what they print.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd.core.event_filter import VALUES_MAX
from meshd.edges.http.limits import Limits
from meshd.edges.http.problems import OVERLOADED
from meshd.edges.mqtt.messages import GONE
from meshd.settings import MqttSettings, load
from tests.conftest import NewBroker
from tests.e2e.conftest import NewEtcd, RunDaemon
from tests.e2e.test_docs import FILE, Shell

PAGE = Path(__file__).parents[2] / "docs/streams.md"
TEXT = PAGE.read_text()
SCRIPTS = "\n## JavaScript\n"
LIMITS = "\n## Limits\n"
ENDS = frozenset({0, 28, 124})
"""Streams have no end, so `curl -m` (28) and `timeout` (124) make one."""
RUN = re.compile(r"@[0-9a-f]{16}\.")
"""A place in the tables names the run of meshd that gave it."""


def parts() -> tuple[str, str, str]:
    """The page up to what needs Node, that, and the rest."""
    first, _, rest = TEXT.partition(SCRIPTS)
    scripts, _, limits = rest.partition(LIMITS)
    return first, scripts, limits


def same_every_time(text: str) -> str:
    return RUN.sub("@0123456789abcdef.", text)


@pytest.fixture
async def shell(
    new_etcd: NewEtcd, new_broker: NewBroker, run_daemon: RunDaemon, tmp_path: Path
) -> AsyncIterator[Shell]:
    etcd, broker = await new_etcd(), await new_broker()
    folder = tmp_path / "work"
    (folder / "bin").mkdir(parents=True)
    for name, module in (("meshd", "-m meshd"), ("python", "")):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        program.chmod(0o755)
    mqtt = f"mqtt.broker={broker.address}"
    async with run_daemon("east", 1, etcd.endpoints, None, mqtt) as east:
        variables = {key: text for key, text in os.environ.items() if not key.startswith("MESHD_")}
        variables |= {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(PAGE.parents[1]),
            "LOGNAME": "ann",
            "COLUMNS": "200",
            "MESHD_URL": east.url,
            "BROKER": broker.address,
        }
        yield Shell(folder, variables, ends=ENDS)


@pytest.mark.timeout(180)
async def test_the_page_says_what_is_printed(shell: Shell, pytestconfig: pytest.Config) -> None:
    first, scripts, limits = parts()
    printed = same_every_time(await shell.page(first))
    if pytestconfig.getoption("--write-docs"):
        PAGE.write_text(printed + SCRIPTS + scripts + LIMITS + limits)
    assert printed.splitlines() == first.splitlines()


def why_no_node() -> str:
    """Why the scripts can't be run here; '' if they can."""
    if shutil.which("node") is None:
        return "there is no node on PATH"
    flags = ("--experimental-eventsource", "--experimental-websocket")
    asked = subprocess.run(["node", *flags, "-e", ""], capture_output=True, check=False)
    return "" if asked.returncode == 0 else f"this node is too old: {asked.stderr.decode()}"


@pytest.mark.timeout(180)
@pytest.mark.skipif(bool(why_no_node()), reason=why_no_node())
async def test_its_scripts_print_what_it_says(shell: Shell, pytestconfig: pytest.Config) -> None:
    first, scripts, limits = parts()
    for name, content in FILE.findall(first):
        (shell.folder / name).write_text(content)
    for name in ("shop", "more"):
        await shell.run(f"meshd apply -f {name}.yaml")
    printed = same_every_time(await shell.page(scripts))
    if pytestconfig.getoption("--write-docs"):
        PAGE.write_text(first + SCRIPTS + printed + LIMITS + limits)
    assert printed.splitlines() == scripts.splitlines()


def test_its_numbers_are_those_of_the_code() -> None:
    limits, mqtt = Limits(), MqttSettings()
    for said in (
        f"{limits.subscribers_max:,} (`streams.subscribers_max`)",
        f"{limits.per_client_max} (`streams.per_client_max`)",
        f"| {limits.send_timeout_s:g} s |",
        f"{limits.feed_bytes >> 20} MiB (`streams.feed_bytes`)",
        f"values of one filter | {VALUES_MAX} |",
        f"{mqtt.in_flight_max} (`mqtt.in_flight_max`)",
        f"`mqtt.event_expiry_s` ({mqtt.event_expiry_s // 86_400} days)",
        f"| {OVERLOADED.status} with `Retry-After`",
        f"`{GONE}` comes by the last will",
        f"comes every {limits.heartbeat_every_s:g} s",
    ):
        assert said in TEXT, said


def test_the_settings_that_it_shows_are_settings(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(mqtt:.*?)```", TEXT, re.DOTALL)
    (tmp_path / "any.pem").touch()
    text = re.sub(r"/etc/meshd/[\w.-]+", "any.pem", shown)
    file = tmp_path / "east.yaml"
    file.write_text(text + "cluster: {name: east, id: 1}\n")
    settings = load(file, {}, ())
    assert str(settings.mqtt.broker) == "broker.example:8883"
    assert settings.mqtt.tls.is_on
