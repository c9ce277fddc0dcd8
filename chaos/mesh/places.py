"""Network namespaces: made, entered and left by this process, gone with it.

For: `namespaces`, which builds a network of them. Not for: what is inside. Invariants: only the
thread that asks goes anywhere, and it comes back; nothing has a name on the machine, so nothing is
left behind.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.mesh.shape import NotPossibleError

_NEW_NET = 0x40000000
_NEW_USER = 0x10000000
_HERE = "/proc/thread-self/ns/net"


def _call(name: str, *arguments: int) -> None:
    """Call the C library, where Python 3.11 has no name for it."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace, held by a descriptor of this process."""

    descriptor: int

    @property
    def path(self) -> str:
        """Where other processes find it, as long as it is held."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @property
    def within(self) -> tuple[str, ...]:
        """Return what runs a command there."""
        return ("nsenter", f"--net={self.path}", "--")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be there, with this thread alone. Who is there waits for nothing."""
        was = here()
        _call("setns", self.descriptor, _NEW_NET)
        try:
            yield
        finally:
            _call("setns", was.descriptor, _NEW_NET)
            was.close()

    def close(self) -> None:
        """Hold it no longer: it is gone when nobody is there any more."""
        os.close(self.descriptor)


def here() -> Place:
    """Return where this thread is."""
    return Place(os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC))


def new() -> Place:
    """Make another one, without going there; raises NotPossibleError if we may not."""
    was = here()
    try:
        _call("unshare", _NEW_NET)
    except OSError as error:
        was.close()
        raise NotPossibleError(
            f"no network namespace can be made here ({error}): be root, or call "
            "chaos.mesh.namespaces.enter() where users may make them"
        ) from None
    made = here()
    _call("setns", was.descriptor, _NEW_NET)
    was.close()
    return made


def become_root_of_our_own() -> None:
    """Enter a user namespace in which we may make network namespaces, and a network namespace of
    its own, or we could not come back to where we are. This can't be undone, and has to come before
    the first thread.
    """
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEW_USER | _NEW_NET)
    except OSError as error:
        raise NotPossibleError(
            f"users may make no namespaces here, or there are threads ({error}): be root"
        ) from None
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
