"""How a run is shown while it goes on: a live picture on a terminal, lines anywhere else.

For: a person who waits for it. Not for: its result. Invariant: a view that fails or is slow changes
nothing of the run but how it is seen.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chaos.running.progress import Progress

LINES = 12
"""The last of what was told; all of it is in the history."""
REFRESHES_PER_S = 4
FIGURES_EVERY_S = 15.0
"""In a log of lines, how it goes is worth a line four times a minute."""


@contextmanager
def shown(progress: Progress, *, plain: bool) -> Iterator[None]:
    """Show it as long as the context lasts."""
    if plain or not sys.stderr.isatty():
        with _lines(progress):
            yield
    else:
        with _live(progress):
            yield


@contextmanager
def _lines(progress: Progress) -> Iterator[None]:
    """Everything that is told, with its time; and from time to time, figures."""
    over = threading.Event()

    def tell(line: str) -> None:
        click.echo(f"{progress.took_s:7.1f} s  {line}", err=True)

    def count() -> None:
        while not over.wait(FIGURES_EVERY_S):
            if figures := progress.figures():
                tell(figures)

    progress.tell = tell
    counting = threading.Thread(target=count, daemon=True)
    counting.start()
    try:
        yield
    finally:
        over.set()
        counting.join()


@contextmanager
def _live(progress: Progress) -> Iterator[None]:
    told: deque[str] = deque(maxlen=LINES)
    progress.tell = lambda line: told.append(f"{progress.took_s:7.1f} s  {line}")

    class Picture:
        def __rich__(self) -> Panel:
            return _picture(progress, list(told))

    console = Console(stderr=True)
    live = Live(Picture(), console=console, refresh_per_second=REFRESHES_PER_S, transient=True)
    with live:
        yield


def _picture(progress: Progress, told: list[str]) -> Panel:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    of = f"{progress.window} of {progress.windows}" if progress.window else "-"
    facts.add_row("window", of)
    facts.add_row("now", progress.phase)
    broken = ", ".join(progress.broken)
    facts.add_row("broken", Text(broken or "nothing", style="bold red" if broken else "green"))
    facts.add_row("traffic", progress.figures() or "-")
    bar = ProgressBar(total=max(1.0, progress.expected_s), completed=progress.took_s)
    took = f"{progress.took_s:.0f} s of about {progress.expected_s:.0f} s"
    return Panel(
        Group(facts, Text(), bar, Text(took, style="dim"), Text(), Text("\n".join(told))),
        title=progress.title,
        title_align="left",
    )
