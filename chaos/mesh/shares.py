"""For each cluster a share of the processors, so that a busy one takes none of another's.

For: meshes of which one cluster's trouble is to be told from that of the machine all of them run
on: with a machine of its own a cluster wouldn't notice how busy another is. Not for: limits that a
fault sets (`limits`). Invariants: unless shares are fixed, nothing is held back while a processor
is idle; groups are removed with the mesh, and those of a harness that was killed by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.mesh.limits import GROUPS

PREFIX = "chaos-share-"
PROCESSES = "cgroup.procs"
HARNESS = 0.3
"""Processors that a fixed share leaves to the harness."""
PERIOD_US = 50_000
"""In which a cluster has its fixed share: half of what a latency may grow by (I12)."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where control groups of a version are, and which files say what. weight: how much a group
    weighs: a quarter of a process in no group, which is the harness, as it is what measures.
    """

    parent: Path
    file: str
    weight: int

    def fix(self, group: Path, share_us: int) -> None:
        """Let a group have that much of each period, and of the next one what it left of it."""
        if self.file == "cpu.weight":
            (group / "cpu.max").write_text(f"{share_us} {PERIOD_US}")
            (group / "cpu.max.burst").write_text(str(share_us))
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(share_us))
            (group / "cpu.cfs_burst_us").write_text(str(share_us))


def _kind() -> _Kind | None:
    first = GROUPS / "cpu"
    if first.is_dir():
        kind = _Kind(first, "cpu.shares", 256)
    else:
        kind = _Kind(GROUPS, "cpu.weight", 25)
        with suppress(OSError):
            if "cpu" not in (GROUPS / "cgroup.subtree_control").read_text().split():
                return None
    return kind if os.access(kind.parent, os.W_OK) else None


@contextmanager
def shared_out(
    names: Collection[str], *, is_fixed: bool = False
) -> Iterator[Mapping[str, tuple[str, ...]]]:
    """Have a group for each cluster, and say by which command something is run in it. Where there
    can't be groups that is none, and all clusters share the processors as any processes do.
    is_fixed: none has more than its share, as if it had a machine of that size.
    """
    kind = _kind()
    made: dict[str, Path] = {}
    try:
        if kind is not None:
            _remove_left(kind.parent)
            for name in names:
                group = kind.parent / f"{PREFIX}{os.getpid()}-{name}"
                group.mkdir()
                made[name] = group
                (group / kind.file).write_text(str(kind.weight))
                if is_fixed:
                    processors = (os.cpu_count() or 1) - HARNESS
                    kind.fix(group, round(PERIOD_US * processors / len(names)))
        yield {name: made_in(group) for name, group in made.items()} or dict.fromkeys(names, ())
    finally:
        for group in made.values():
            _remove(group)


def made_in(group: Path) -> tuple[str, ...]:
    """Return what runs a command in a group, from its first moment on."""
    return ("sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / PROCESSES))


def _remove_left(parent: Path) -> None:
    """Remove the groups of harnesses that are gone."""
    for group in parent.glob(f"{PREFIX}*"):
        pid = group.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            _remove(group)


def _remove(group: Path) -> None:
    # A process that is just ending is moved to where it ends without a group.
    with suppress(OSError):
        for pid in (group / PROCESSES).read_text().split():
            with suppress(OSError):
                (group.parent / PROCESSES).write_text(pid)
        group.rmdir()
