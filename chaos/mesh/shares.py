"""For each cluster a share of the processors, so that a busy one takes none of another's.

For: meshes of which one cluster's trouble is to be told from that of the machine all of them run
on: with a machine of its own a cluster wouldn't notice how busy another is. Not for: limits that a
fault sets (`limits`). Invariants: nothing is held back while a processor is idle; groups are
removed with the mesh, and those of a harness that was killed by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.mesh.limits import GROUPS

PREFIX = "chaos-share-"
PROCESSES = "cgroup.procs"


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where control groups of a version are, and by what a group weighs how much."""

    parent: Path
    file: str
    weight: int
    """A quarter of what a process in no group has, which is the harness: it is what measures."""


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
def shared_out(names: Iterable[str]) -> Iterator[Mapping[str, tuple[str, ...]]]:
    """Have a group for each cluster, and say by which command something is run in it. Where there
    can't be groups that is none, and all clusters share the processors as any processes do.
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
