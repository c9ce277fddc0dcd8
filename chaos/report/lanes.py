"""The timeline: rows that share one clock, drawn one below the other.

For: what happened, and what it did to whom. Not for: verdicts (`page`). Invariant: a row is as wide
as its place, so the page is legible at any width: only lines and dots are in the drawing, which is
stretched, and all text is beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree as ET

from chaos.evidence import Evidence, Fault
from chaos.report import series
from chaos.report.markup import Child, el
from chaos.report.series import BINS, Appends, Clock, Span
from chaos.validators.isolation import p99

WIDTH = 1000.0
LATENCY_HEIGHT = 64.0
STRIP_HEIGHT = 16.0
LAG_STEPS_S = (0.05, 0.2, 1.0, 5.0)
LAG_WORDS = ("up to 50 ms", "200 ms", "1 s", "5 s", "longer")
TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
TICKS_MAX = 10
PHASES = (
    *("Ready", "Syncing", "Connecting", "Stale", "Lost", "Forked", "Quarantined", "Refused"),
    "Paused",
)


def timeline(evidence: Evidence) -> ET.Element:
    """All rows."""
    clock = series.clock_of(evidence)
    faults = evidence.faults
    return el(
        "section",
        el("h2", "What happened"),
        _group("Faults", _fault_rows(faults, clock), "from injecting to healing"),
        _group(
            "Append latency",
            _latency_rows(evidence, clock),
            "each dot is an acknowledged command; the same scale in every row",
            _legend(("dot", "acknowledged"), ("failed", "failed"), ("unknown", "outcome unknown")),
        ),
        _group(
            "Replication lag",
            _lag_rows(evidence, clock),
            "from the acknowledgement in one cluster to a subscriber in the other; the longest of"
            " each moment",
            _legend(*((f"lag{step}", words) for step, words in enumerate(LAG_WORDS))),
        ),
        _group("Table versions", _version_rows(evidence, clock), "each line is a change"),
        _group(
            "Phases",
            _phase_rows(evidence, clock),
            "what each meshd calls its peers",
            _legend(*((f"phase {name}", name) for name in PHASES)),
        ),
        _axis(clock),
        class_="timeline",
    )


def _group(title: str, rows: Iterable[ET.Element], says: str, legend: Child = None) -> ET.Element:
    found = list(rows) or [el("p", "Nothing of this was recorded.", class_="none")]
    heading = el("div", el("h3", title), el("p", says), class_="heading")
    return el("div", heading, legend, *found, class_="group")


def _legend(*marks: tuple[str, str]) -> ET.Element:
    items = (el("li", el("i", class_=kind), words) for kind, words in marks)
    return el("ul", *items, class_="legend")


def _row(label: str, note: str, drawing: Child) -> ET.Element:
    said = el("div", el("b", label), el("span", note), class_="label")
    return el("div", said, el("div", drawing, class_="plot"), class_="row")


def _drawing(height: float, title: str, *shapes: Child) -> ET.Element:
    return el(
        "svg",
        el("title", title),
        *shapes,
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        preserveAspectRatio="none",
        role="img",
        style=f"height:{height:g}px",
    )


def _box(kind: str, start: float, end: float, height: float, title: str = "") -> ET.Element:
    return el(
        "rect",
        el("title", title) if title else None,
        class_=kind,
        x=start * WIDTH,
        y=0,
        width=max(1.5, (end - start) * WIDTH),
        height=height,
    )


def _shades(evidence: Evidence, clock: Clock, own: set[str], height: float) -> Iterator[ET.Element]:
    """Behind what is drawn: when there were faults, the row's own ones darker."""
    for fault in evidence.faults:
        kind = "own" if own & set(fault.injected.clusters) else "others"
        yield _box(f"shade {kind}", clock.at(fault.start_ns), clock.at(fault.end_ns), height)


def _fault_rows(faults: Sequence[Fault], clock: Clock) -> Iterator[ET.Element]:
    """One row for each fault and its clusters, however often it was done to them."""
    by_row: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        key = fault.injected.fault, ", ".join(fault.injected.clusters)
        by_row.setdefault(key, []).append(fault)
    for (name, clusters), same in by_row.items():
        boxes = [_fault_box(fault, clock) for fault in same]
        times = f" {len(same)} times" if len(same) > 1 else ""
        yield _row(
            name, f"{clusters}{times}", _drawing(STRIP_HEIGHT, f"{name} of {clusters}", *boxes)
        )


def _fault_box(fault: Fault, clock: Clock) -> ET.Element:
    kind = "fault" if fault.bit is not None else "fault toothless"
    proof = "no effect was seen" if fault.bit is None else fault.bit.proof
    start, end = clock.at(fault.start_ns), clock.at(fault.end_ns)
    return _box(kind, start, end, STRIP_HEIGHT, f"{fault.injected.fault}: {proof}")


def _latency_rows(evidence: Evidence, clock: Clock) -> Iterator[ET.Element]:
    found = series.appends(evidence, clock)
    values = [point.value for one in found.values() for point in one.took if point.value > 0]
    if not values:
        return
    low, high = 10 ** math.floor(math.log10(min(values))), max(values)
    high = 10 ** math.ceil(math.log10(max(high, low * 1.01)))
    for cluster, one in found.items():
        shapes = [
            *_shades(evidence, clock, {cluster}, LATENCY_HEIGHT),
            *_grid(low, high),
            _dots(one, low, high),
            _ticks("failed", one.failed, 0, 10),
            _ticks("unknown", one.unknown, 0, 10),
        ]
        note = f"p99 {duration(p99([point.value for point in one.took]))}" if one.took else "none"
        drawing = _drawing(LATENCY_HEIGHT, f"Append latency in {cluster}", *shapes)
        row = _row(cluster, note, drawing)
        plot = row[-1]
        for step in _decades(low, high):
            top = f"top:{100 * (1 - _height_of(step, low, high)):.1f}%"
            plot.append(el("small", duration(step), style=top))
        yield row


def _decades(low: float, high: float) -> Iterator[float]:
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        yield 10.0**power


def _height_of(value: float, low: float, high: float) -> float:
    """0 at the lowest, 1 at the highest, by powers."""
    place = math.log(max(value, low) / low) / math.log(high / low)
    return 0.06 + 0.76 * place


def _grid(low: float, high: float) -> Iterator[ET.Element]:
    for step in _decades(low, high):
        y = LATENCY_HEIGHT * (1 - _height_of(step, low, high))
        yield el("path", class_="grid", d=f"M0 {y:.1f}H{WIDTH:g}")


def _dots(one: Appends, low: float, high: float) -> ET.Element:
    """Lines of no length with round ends: they stay round when the drawing is stretched."""
    parts = []
    for point in one.took:
        y = LATENCY_HEIGHT * (1 - _height_of(point.value, low, high))
        parts.append(f"M{point.place * WIDTH:.1f} {y:.1f}h0")
    return el("path", class_="dots", d="".join(parts))


def _ticks(kind: str, places: Iterable[float], top: float, bottom: float) -> ET.Element:
    parts = (f"M{place * WIDTH:.1f} {top:g}V{bottom:g}" for place in places)
    return el("path", class_=f"ticks {kind}", d="".join(parts))


def _lag_rows(evidence: Evidence, clock: Clock) -> Iterator[ET.Element]:
    for (origin, reader), row in series.lags(evidence, clock).items():
        boxes = [
            _box(
                f"lag{sum(value > step for step in LAG_STEPS_S)}",
                stretch / BINS,
                (stretch + 1) / BINS,
                STRIP_HEIGHT,
                duration(value),
            )
            for stretch, value in sorted(row.items())
        ]
        shades = _shades(evidence, clock, {origin, reader}, STRIP_HEIGHT)
        name = f"{origin} \N{RIGHTWARDS ARROW} {reader}"
        drawing = _drawing(STRIP_HEIGHT, f"Replication lag {name}", *shades, *boxes)
        yield _row(name, f"most {duration(max(row.values()))}", drawing)


def _version_rows(evidence: Evidence, clock: Clock) -> Iterator[ET.Element]:
    for cluster, places in series.versions(evidence, clock).items():
        shades = _shades(evidence, clock, {cluster}, STRIP_HEIGHT)
        lines = _ticks("version", places, 2, STRIP_HEIGHT - 2)
        drawing = _drawing(STRIP_HEIGHT, f"Table versions of {cluster}", *shades, lines)
        yield _row(cluster, f"{len(places)} changes", drawing)


def _phase_rows(evidence: Evidence, clock: Clock) -> Iterator[ET.Element]:
    for (process, peer), spans in series.phases(evidence, clock).items():
        boxes = [_phase_box(span) for span in spans]
        drawing = _drawing(STRIP_HEIGHT, f"{peer} as seen by {process}", *boxes)
        worst = sorted({span.phase for span in spans} - {"Ready"})
        yield _row(f"{process} on {peer}", ", ".join(worst) or "Ready", drawing)


def _phase_box(span: Span) -> ET.Element:
    kind = span.phase if span.phase in PHASES else "other"
    return _box(f"phase {kind}", span.start, span.end, STRIP_HEIGHT, span.phase)


def _axis(clock: Clock) -> ET.Element:
    length_s = max(clock.length_s, 1e-9)
    step = next((one for one in TICKS_S if length_s / one <= TICKS_MAX), TICKS_S[-1])
    labels = [
        el("span", time_text(number * step), style=f"left:{100 * number * step / length_s:.2f}%")
        for number in range(int(length_s / step) + 1)
    ]
    said = el("div", el("b", "time"), el("span", "since the start"), class_="label")
    return el("div", said, el("div", *labels, class_="plot"), class_="row axis")


def time_text(time_s: float) -> str:
    """A moment of a run."""
    minutes, seconds = divmod(time_s, 60)
    return f"{minutes:.0f}:{seconds:02.0f}" if minutes else f"{seconds:.3g} s"


def duration(time_s: float) -> str:
    """A time for people."""
    if time_s < 0.001:  # noqa: PLR2004 below a millisecond
        return f"{time_s * 1e6:.0f} µs"
    if time_s < 0.1:  # noqa: PLR2004 below that parts of milliseconds count
        return f"{time_s * 1000:.3g} ms"
    return f"{time_s * 1000:.0f} ms" if time_s < 1 else f"{time_s:.3g} s"
