"""The live view: the whole screen, drawn anew several times a second.

For: the screen and its layout. Not for: what is in it (`pictures`). Invariant: the terminal is as
it was when the view ends, however it ends, and what matters of the run is still to be read there.
"""

from __future__ import annotations

import asyncio

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table as Grid
from rich.text import Text

from meshd.demo import pictures
from meshd.demo.catalog import CLUSTERS
from meshd.demo.performance import Performance
from meshd.demo.scene import Scene, Step

DRAW_EVERY_S = 0.125
FRAME_LINES = 2
HEAD_LINES = 1
RULE_LINES = 1
TRAFFIC_LINES = 11
NARRATION_LINES_MIN = 4
EXCERPT_LINES_MAX = 9


def can_show(console: Console) -> bool:
    """Whether this is a terminal that a live view can be drawn on."""
    return console.is_terminal and not console.is_dumb_terminal


async def watch(performance: Performance, console: Console) -> None:
    """Play, and show it."""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        async with asyncio.TaskGroup() as tasks:
            drawing = tasks.create_task(_draw(performance, live), name="draw")
            await performance.play()
            drawing.cancel()
    console.print(summary(performance.scene))


async def _draw(performance: Performance, live: Live) -> None:
    while True:
        live.update(screen(performance, *live.console.size), refresh=True)
        await asyncio.sleep(DRAW_EVERY_S)


def screen(performance: Performance, width: int, height: int) -> RenderableType:
    """The screen at this size. The narration gets what the other parts leave."""
    scene = performance.scene
    fixed = HEAD_LINES + FRAME_LINES + RULE_LINES + TRAFFIC_LINES + NARRATION_LINES_MIN
    spare = height - fixed - pictures.PANEL_LINES
    excerpt = min(max(0, spare - NARRATION_LINES_MIN), EXCERPT_LINES_MAX)
    panel = pictures.PANEL_LINES + excerpt
    told = height - HEAD_LINES - FRAME_LINES - panel - RULE_LINES - TRAFFIC_LINES
    return Group(
        pictures.headline(scene, width),
        _panels(performance, panel),
        pictures.traffic(scene.recent, width, TRAFFIC_LINES),
        Rule(style="dim"),
        pictures.narration(scene.lines, width, told),
    )


def _panels(performance: Performance, height: int) -> Grid:
    feeds = performance.mesh.feeds if performance.mesh is not None else {}
    grid = Grid.grid(expand=True)
    for _ in CLUSTERS:
        grid.add_column(ratio=1)
    grid.add_row(*(pictures.cluster_panel(name, feeds.get(name), height) for name in CLUSTERS))
    return grid


def summary(scene: Scene) -> Text:
    """What is left to read when the screen is gone."""
    text = Text()
    for step in scene.steps:
        text.append_text(_step_line(step))
        for finding in step.findings:
            if not finding.ok:
                text.append(f"    ✗ {finding.what}: {finding.detail}\n", "red")
    return text


def _step_line(step: Step) -> Text:
    kept = sum(finding.ok for finding in step.findings)
    seconds = (step.ended_s or step.began_s) - step.began_s
    sign, style = ("✓", "green") if step.ok else ("✗", "bold red")
    line = Text(f"  {sign} ", style)
    line.append(f"{step.number} {step.title:<34}")
    line.append(f" {kept} of {len(step.findings)} expectations kept, {seconds:.1f} s\n", "dim")
    return line
