"""Breaking and mending a mesh that somebody runs, by the commands that they gave.

For: one command after the other, each limited in time, and undoing all of them. Not for: knowing
when a fault is due, nor what it does (`attached`, `chaos.toolkit`). Invariants: nothing is run for
a target that isn't allowed; nothing is run that isn't on the list of what is to be undone before;
two commands never overlap, so that what undoes a thing can't overtake what does it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from chaos.mesh.mesh_file import (
    UNDONE_BY,
    MeshFile,
    Target,
    Verb,
    argv,
    is_allowed,
    template,
)
from chaos.mesh.shape import NotPossibleError
from chaos.mesh.undoing import Undo, UndoList

SAID_CHARS_MAX = 500
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RefusedError(NotPossibleError):
    """A target that isn't allowed, or a command that the file doesn't have."""


class CommandError(RuntimeError):
    """A command didn't do what it should."""


class NotUndoneError(RuntimeError):
    """Something is left broken; the message says what, and how to mend it."""


Say = Callable[[str], None]


class Commanding:
    """Runs the commands of one file. say: told of each command, before it runs or instead."""

    def __init__(
        self, path: Path, file: MeshFile, say: Say, *, dry_run: bool = False, undo: UndoList
    ) -> None:
        self.file = file
        self.dry_run = dry_run
        self.undo = undo
        self._path = path
        self._say = say
        # Of threads: whoever is cancelled leaves one behind in which a command runs on.
        self._one_at_a_time = threading.Lock()
        self._is_over = False

    def can(self, verb: Verb, target: Target) -> bool:
        """Whether this may be done, and the file says how."""
        return is_allowed(self.file, target) and bool(template(self.file, verb, target))

    def do(self, verb: Verb, target: Target) -> None:
        """Do it; raises RefusedError or CommandError."""
        words = self._words(verb, target)
        if self.dry_run:
            self._say(f"would {verb} {target}: {shlex.join(words)}")
            return
        with self._one_at_a_time:
            if self._is_over:
                raise CommandError(f"{verb} {target}: not done, since the run is over")
            undone_by = UNDONE_BY.get(verb)
            if undone_by is not None:
                undoing = self._words(undone_by, target)
                what = _undo_of(undone_by, target)
                self.undo.note(Undo(what, undoing, self.file.command_timeout_s))
            self._say(f"{verb} {target}: {shlex.join(words)}")
            run(words, self.file.command_timeout_s)
            self.undo.forget(_undo_of(verb, target))

    def _words(self, verb: Verb, target: Target) -> tuple[str, ...]:
        if not is_allowed(self.file, target):
            part = "servers" if target.server else "links"
            raise RefusedError(
                f"{target} may not be touched: it is not in `allowed.{part}` of {self._path};"
                " add it there if it may be broken"
            )
        words = argv(self.file, verb, target)
        if not words:
            raise RefusedError(
                f"{self._path} has no command to {verb} {target}; give it under `commands`"
            )
        return words

    def undo_all(self) -> None:
        """Undo whatever is left, last first; raises NotUndoneError."""
        with _deaf(self._say), self._one_at_a_time:
            undo_all(self.undo, self._say)

    def close(self) -> None:
        """The same for good: who still waits for their turn in another thread doesn't get it."""
        self._is_over = True
        self.undo_all()


def _undo_of(verb: Verb, target: Target) -> str:
    return f"{verb} {target}"


def undo_all(undo: UndoList, say: Say) -> None:
    """Try every command of the list, whatever becomes of the others. What can't be undone stays on
    the list. A signal does not end this: the time of each command is limited.
    """
    failed = []
    with _deaf(say):
        for one in undo:
            say(f"undoing: {one.what}: {shlex.join(one.argv)}")
            try:
                run(one.argv, one.timeout_s)
            except CommandError as error:
                failed.append(f"{one.what}: {error}")
            else:
                undo.forget(one.what)
    if failed:
        lines = "".join(f"\n  {one}" for one in failed)
        remedy = f"mend that, then run `python -m chaos.mesh undo {undo.path}`"
        raise NotUndoneError(f"{len(failed)} things are left undone:{lines}\n{remedy}")


def run(words: Sequence[str], timeout_s: float) -> None:
    """Run a command to its end; raises CommandError. Ctrl-C at a terminal doesn't reach it."""
    command = shlex.join(words)
    # A file, since whom it leaves in the background would hold a pipe open.
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandError(f"`{command}` can't be run: {error.strerror}") from None
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise CommandError(
                f"`{command}` was ended: it took more than {timeout_s:g} s"
            ) from None
        except BaseException:
            _end(process)
            raise
        if status:
            said.seek(0)
            text = said.read().decode(errors="replace").strip()[-SAID_CHARS_MAX:]
            raise CommandError(
                f"`{command}` ended with status {status}: {text or 'it said nothing'}"
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def _deaf(say: Say) -> Iterator[None]:
    """No signal breaks off what goes on here; only the main thread can see to that."""

    def tell(number: int, frame: FrameType | None) -> None:
        del frame
        say(f"{signal.Signals(number).name}: what was broken is being undone; this ends by itself")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, tell) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
