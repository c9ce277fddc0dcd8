"""The live view's parts: what each cluster knows, and who answers whom.

For: turning facts into text with colours. Not for: the screen (`view`). Invariant: pure; each part
keeps to the width and height it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from meshd.client import BackendItem, TableService
from meshd.demo.caller import Kind, Table
from meshd.demo.catalog import CLUSTERS, SERVICES, services_for
from meshd.demo.feed import DEMOTED_FROM, Feed, Look, PeerLook
from meshd.demo.scene import Line, Scene, Tone
from meshd.demo.tally import Recent
from meshd.model.peer import Phase
from meshd.model.table import Standing

COLOURS: Mapping[str, str] = {"east": "cyan", "west": "magenta", "south": "yellow"}
NAME_WIDTH = 10
WIDE = 100
PANEL_LINES = 5
"""What a cluster's panel shows at least, without its frame."""

_BLOCKS: Mapping[str, tuple[str, str]] = {
    **{name: ("━", colour) for name, colour in COLOURS.items()},
    Kind.NO_BACKEND: ("╌", "dim red"),
    Kind.FAILED: ("▒", "bold red"),
}
_PHASES = {Phase.READY: "green", Phase.STALE: "bold yellow", Phase.LOST: "bold red"}
_TONES = {
    Tone.STEP: ("▶", "bold white"),
    Tone.SAY: (" ", "white"),
    Tone.DONE: ("·", "bright_blue"),
    Tone.GOOD: ("✓", "green"),
    Tone.BAD: ("✗", "bold red"),
}


def headline(scene: Scene, width: int) -> Text:
    """Where the story is."""
    step = scene.step
    left = Text(" meshd demo ", "bold black on bright_green")
    title = f" {step.number}/{scene.steps_total} {step.title}" if step else " preparing"
    minutes, seconds = divmod(int(scene.elapsed_s), 60)
    right = f"{scene.recent.total.total()} requests · {minutes}:{seconds:02d} "
    if width >= WIDE:
        right = f"Ctrl-C ends everything · {right}"
    left.append(title, "bold")
    left.truncate(max(0, width - len(right) - 1))
    gap = max(1, width - left.cell_len - len(right))
    return left.append(" " * gap).append(right, "dim")


def cluster_panel(name: str, feed: Feed | None, height: int) -> Panel:
    """What one cluster's meshd says; height: without the frame."""
    colour = COLOURS[name]
    look = feed.look if feed is not None else None
    is_lost = look is None and feed is not None and bool(feed.table)
    if look is not None:
        state = Text(" ready ", colour) if look.ready else Text(" not ready ", "yellow")
        lines = _facts(look)
    elif is_lost:
        state = Text(" killed ", "bold white on red")
        lines = [Text("no meshd and no etcd", "bold red"), Text("its HTTP servers live,")]
        lines += [Text("its customers use the"), Text("last table they read")]
    else:
        state, lines = Text(" starting ", "dim"), [Text("…", "dim")]
    if feed is not None and feed.table:
        lines.append(_targets_line(feed.table))
    if feed is not None and height > PANEL_LINES:
        lines += [service_dots(service) for service in feed.services]
    return Panel(
        Text("\n").join(lines[:height]),
        title=Text.assemble((f" {name} ", f"bold {colour}"), state),
        title_align="left",
        border_style="red" if is_lost else colour,
        height=height + 2,
    )


def _facts(look: Look) -> list[Text]:
    lines = [_peer_line(look.peers[name]) for name in CLUSTERS if name in look.peers]
    vector = Text("vector ", "dim")
    for name, seq in look.seqs.items():
        vector.append(f"{name[0]}{seq} ", COLOURS.get(name, ""))
    digest = Text.assemble(("digest ", "dim"), look.digest[:8])
    return [*lines, vector, digest]


def _peer_line(peer: PeerLook) -> Text:
    phase = _PHASES.get(Phase(peer.phase), "yellow")
    line = Text(f"{peer.name:<6} ", COLOURS[peer.name])
    line.append(f"● {peer.phase}", phase)
    if peer.standing != Standing.FRESH:
        line.append(f" {peer.standing}", "yellow")
    return line


def _targets_line(table: Table) -> Text:
    """How many backends of each cluster take traffic from here; demoted ones in brackets."""
    counts: Counter[str] = Counter()
    demoted = set()
    for targets in table.values():
        for target in targets:
            counts[target.cluster] += 1
            if target.priority >= DEMOTED_FROM:
                demoted.add(target.cluster)
    line = Text("sends to ", "dim")
    for name in CLUSTERS:
        text = f"({name[0]}{counts[name]})" if name in demoted else f"{name[0]}{counts[name]}"
        line.append(f"{text} ", f"dim {COLOURS[name]}" if name in demoted else COLOURS[name])
    return line


def service_dots(service: TableService) -> Text:
    """A service of a table: a dot per backend, tier by tier, hollow where it is out."""
    line = Text(f"{service['name']:<{NAME_WIDTH}}", "white")
    tier: int | None = None
    for backend in service["backends"]:
        if tier is not None and backend["priority"] != tier:
            line.append("→ ", "dim")
        tier = backend["priority"]
        line.append(_dot(backend))
    if not any(backend["eligible"] for backend in service["backends"]):
        line.append("no backend", "red")
    return line


def _dot(backend: BackendItem) -> Text:
    colour = COLOURS.get(backend["cluster"], "white")
    if not backend["eligible"]:
        return Text("○ ", f"dim {colour}")
    is_demoted = backend["priority"] >= DEMOTED_FROM
    return Text("◌ " if is_demoted else "● ", colour)


def traffic(recent: Recent, width: int, height: int) -> Grid:
    """For each service and each cluster that asks, who answered lately."""
    column = (width - NAME_WIDTH - 1) // len(CLUSTERS)
    grid = Grid.grid(padding=0)
    grid.add_column(width=NAME_WIDTH + 1)
    for _ in CLUSTERS:
        grid.add_column(width=column)
    heads = [Text.assemble(("asked from ", "dim"), (name, COLOURS[name])) for name in CLUSTERS]
    grid.add_row(Text(" service", "dim"), *heads)
    shown = [name for name in SERVICES if any(name in services_for(one) for one in CLUSTERS)]
    for service in shown[: height - 1]:
        bars = [_bar(recent, caller, service, column - 2) for caller in CLUSTERS]
        grid.add_row(Text(f" {service}", "white"), *bars)
    return grid


def _bar(recent: Recent, caller: str, service: str, width: int) -> Text:
    if service not in services_for(caller):
        return Text("·", "dim")
    shares = recent.shares(caller, service)
    if not shares:
        return Text("·" * width, "dim")
    if shares[Kind.NO_BACKEND] == shares.total():
        return Text("no backend left"[:width], "dim red")
    bar = Text()
    drawn = seen = 0
    for who, (block, style) in _BLOCKS.items():
        seen += shares[who]
        cells = round(seen * width / shares.total()) - drawn
        drawn += cells
        # The initial tells clusters apart where colours don't.
        initial = who[0] if cells > 1 and who in COLOURS else block
        bar.append((initial + block * cells)[:cells], style)
    return bar


def narration(lines: Sequence[Line], width: int, height: int) -> Text:
    """The latest lines of the story."""
    shown = []
    for line in lines[-height:] if height > 0 else []:
        sign, style = _TONES[line.tone]
        text = Text(f" {sign} {line.text}", style)
        text.truncate(width, overflow="ellipsis")
        shown.append(text)
    return Text("\n").join(shown)
