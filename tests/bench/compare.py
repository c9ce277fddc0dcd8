"""`make bench-compare`: what changed between two commits, by runs of both in turn.

For: `make bench-compare ARGS='BASE [HEAD] --only logs --rounds 5'`. Each commit is checked out into
a git worktree of its own and runs its own tests/bench there, on the virtual environment and the
etcd of this one; rounds go base, head, head, base, each a process by itself. Not for: gates.
Invariants: whatever ends it, the worktrees and the processes are gone; what is measured is what was
committed, never what lies around.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console

from chaos.mesh.servers import dying_with_us
from tests.bench.comparison import Comparison, Figures, compared, figures_of, show
from tests.bench.machine import describe, keep_data_in

RUN_TIMEOUT_S: Final = 3600.0
"""Of one round of one commit: the longest part takes some minutes, so that this is a hang."""
END_TIMEOUT_S: Final = 60.0
"""For a bench that was interrupted to end its etcds, each of which may take 10 s."""
LAST_LINES: Final = 15


class Failure(Exception):  # noqa: N818 it is told to people, not caught by name
    """Why there is no comparison, and what to do."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One side. name: base or head."""

    name: str
    hash: str
    subject: str

    def __str__(self) -> str:
        return f"{self.name} {self.hash[:10]} ({self.subject})"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to run. arguments: of tests/bench, the same for both."""

    base: str
    head: str
    rounds: int
    arguments: tuple[str, ...]


def _git(*arguments: str) -> str:
    """Ask git; raises Failure with what it says."""
    asked = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise Failure(f"git {arguments[0]}: {asked.stderr.strip()}")
    return asked.stdout.strip()


def commit_of(name: str, given: str) -> Commit:
    """Find what was given as a commit; raises Failure."""
    try:
        found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{given}^{{commit}}")
    except Failure as error:
        raise Failure(
            f"{name}: {given!r} is no commit of this repository; "
            "`git log --oneline` lists some, `git fetch` gets those of others"
        ) from error
    return Commit(name, found, _git("log", "-1", "--format=%s", found))


def warn_of_changes() -> None:
    """Say that what isn't committed isn't measured."""
    changed = _git("status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        Console(stderr=True).print(
            f"[yellow]{len(changed)} files have changes that are in no commit: "
            "they are not measured[/]"
        )


@contextmanager
def checked_out(commit: Commit, folder: Path) -> Iterator[Path]:
    """Have a commit in a worktree of its own."""
    place = folder / commit.name
    try:
        _git("worktree", "add", "--detach", str(place), commit.hash)
        yield place
    finally:
        # git refuses to remove what it had no time to make; then the folder goes with its parent.
        with suppress(Failure):
            _git("worktree", "remove", "--force", str(place))
        shutil.rmtree(place, ignore_errors=True)
        with suppress(Failure):
            _git("worktree", "prune")


def run(commit: Commit, place: Path, arguments: Sequence[str]) -> Figures:
    """One round of one commit; raises Failure with what its bench said last."""
    data = place.with_name(f"{commit.name}-data")
    data.mkdir()
    figures, said = data / "figures.json", place.with_name(f"{commit.name}.log")
    command = (sys.executable, "-m", "tests.bench", "--rounds", "1", "--json", str(figures))
    # Python looks for modules in the working folder first, and so do the meshds that it starts.
    environment = {**os.environ, "TMPDIR": str(data), "PYTHONPATH": str(place)}
    with said.open("wb") as log:
        process = subprocess.Popen(
            [*dying_with_us(), *command, *arguments],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A terminal's Ctrl-C would reach it as well as ours, and the second cuts its end short.
            start_new_session=True,
        )
        try:
            status = process.wait(RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"the bench of {commit} takes longer than {RUN_TIMEOUT_S} s") from error
        finally:
            _end(process)
    if status or not figures.is_file():
        last = said.read_text(errors="replace").splitlines()[-LAST_LINES:]
        raise Failure(
            f"the bench of {commit} ended with status {status}. It said last:\n  "
            + "\n  ".join(last)
        )
    found = figures_of(orjson.loads(figures.read_bytes()))
    shutil.rmtree(data, ignore_errors=True)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt it, as Ctrl-C does, so that it ends what it started; then kill it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def compare(wanted: Wanted) -> Comparison:
    """All rounds of both; raises Failure."""
    base, head = commit_of("base", wanted.base), commit_of("head", wanted.head)
    warn_of_changes()
    say = Console(stderr=True).print
    found: dict[str, list[Figures]] = {"base": [], "head": []}
    with (
        tempfile.TemporaryDirectory(prefix="meshd-compare-", ignore_cleanup_errors=True) as name,
        checked_out(base, Path(name)) as base_place,
        checked_out(head, Path(name)) as head_place,
    ):
        sides = ((base, base_place), (head, head_place))
        for number in range(wanted.rounds):
            for commit, place in sides if number % 2 == 0 else reversed(sides):
                say(f"round {number + 1} of {wanted.rounds}: {commit}", highlight=False)
                found[commit.name].append(run(commit, place, wanted.arguments))
    return compared(str(base), str(head), found["base"], found["head"])


def _interrupt(number: int, frame: object) -> None:
    """End once: who asks again while all is being put away would leave half of it."""
    del number, frame
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(prog="make bench-compare", description=__doc__)
    parser.add_argument("base", help="a commit, as git takes it")
    parser.add_argument("head", nargs="?", default="HEAD", help="another; HEAD if left out")
    parser.add_argument("--only", default="", help="one part, as of make bench")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each commit")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement and round")
    parser.add_argument("--tmpfs", action="store_true", help="keep the data in memory")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--repository", type=Path, default=Path(), help="of the commits")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    arguments = ("--seconds", str(given.seconds), *(("--only", given.only) if given.only else ()))
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, _interrupt)
    keep_data_in(is_tmpfs=given.tmpfs)
    machine = describe()
    file = given.json.resolve() if given.json else None
    os.chdir(given.repository)
    try:
        found = compare(Wanted(given.base, given.head, given.rounds, arguments))
    except Failure as error:
        sys.exit(f"make bench-compare: {error}")
    except KeyboardInterrupt:
        sys.exit("make bench-compare: interrupted; nothing is left behind")
    show(found, str(machine))
    if file:
        data = {"machine": asdict(machine), "arguments": arguments, **asdict(found)}
        file.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
