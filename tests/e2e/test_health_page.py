"""The commands in docs/health.md print what the page says, of a server that falls ill and recovers.

`pytest tests/e2e/test_health_page.py --write-docs` writes the page anew with what they print.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.e2e.conftest import NewEtcd, RunDaemon
from tests.e2e.test_docs import Shell

PAGE = Path(__file__).parents[2] / "docs/health.md"
SHOWN, PORT = "10.1.0.1", 8080


@asynccontextmanager
async def server(host: str, is_ill: Callable[[], bool]) -> AsyncIterator[None]:
    """Answer 503 while it is ill."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=503 if is_ill() else 200)

    app = web.Application()
    app.router.add_get("/healthz", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, PORT).start()
        yield
    finally:
        await runner.cleanup()


async def test_the_page_says_what_is_printed(
    new_etcd: NewEtcd,
    run_daemon: RunDaemon,
    free_address: Callable[[], str],
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    etcd, host = await new_etcd(), free_address().partition(":")[0]
    folder = tmp_path / "work"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin/meshd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m meshd "$@"\n')
    program.chmod(0o755)
    async with (
        server(host, (folder / "ill").exists),
        run_daemon("east", 1, etcd.endpoints, None, "health.probe_local=true") as east,
    ):
        variables = {key: text for key, text in os.environ.items() if not key.startswith("MESHD_")}
        variables |= {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(PAGE.parents[1]),
            "LOGNAME": "ann",
            "COLUMNS": "200",
            "MESHD_URL": east.url,
        }
        text = PAGE.read_text()
        told = await Shell(folder, variables).page(text.replace(SHOWN, host))
        printed = told.replace(host, SHOWN)
    if pytestconfig.getoption("--write-docs"):
        PAGE.write_text(printed)
    assert _words(printed) == _words(text)


def _words(text: str) -> list[list[str]]:
    """The words of each line: the address of a test is longer or shorter than the page's."""
    return [line.split() for line in text.splitlines()]
