"""The data directory and the ports.

For: making sure that this etcd can live here, with a clear message if not. Not for: processes.
Invariant: at most one meshd at a time holds a data directory.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
from contextlib import closing

from meshd.edges.embedded.config import EmbeddedConfig
from meshd.model.errors import FatalError

LOG_BYTES_MAX = 16 * 1024 * 1024
"""A log larger than this is put aside at the next start: two of them are kept, no more."""

_PORT_PROBLEMS = {
    errno.EADDRINUSE: "is in use by another process",
    errno.EADDRNOTAVAIL: "is not an address of this machine",
    errno.EACCES: "may not be used without more rights",
}


def take_data_dir(config: EmbeddedConfig) -> int:
    """Make the directory if need be and lock it. Returns the lock, to be closed at the end."""
    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(config.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FatalError(
            f"etcd's data directory {config.data_dir} can't be used: {error.strerror} "
            f"({error.filename}); set etcd.embedded.data_dir to a directory that meshd may write"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise FatalError(
            f"another meshd runs its etcd in {config.data_dir}; each needs a directory of its own"
        ) from error
    return lock


def check_ports(config: EmbeddedConfig) -> None:
    """Raise FatalError where etcd could not listen."""
    for setting, address in (
        ("client_address", config.client_address),
        ("peer_address", config.peer_address),
    ):
        host, _, port = address.rpartition(":")
        _check_port(f"etcd.embedded.{setting}", host.strip("[]"), int(port))


def open_log(config: EmbeddedConfig) -> int:
    """Open etcd's log for appending."""
    try:
        if config.log_file.exists() and config.log_file.stat().st_size > LOG_BYTES_MAX:
            config.log_file.replace(config.log_file.with_suffix(".log.1"))
        return os.open(
            config.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise FatalError(f"can't write {config.log_file}: {error.strerror}") from error


def last_words(config: EmbeddedConfig, *, lines_max: int = 3) -> str:
    """Return the end of etcd's log: the best there is to say why it did not start."""
    try:
        lines = config.log_file.read_text(errors="replace").splitlines()[-200:]
    except OSError:
        return "it left no log"
    grave = [line for line in lines if any(word in line for word in ("fatal", "panic", "error"))]
    return " | ".join(line[:300] for line in (grave or lines)[-lines_max:]) or "its log is empty"


def _check_port(setting: str, host: str, port: int) -> None:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise FatalError(f"{setting}: etcd listens on IP addresses only, not {host!r}") from error
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        # As etcd does, so that connections of an earlier run that linger don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
            probe.listen(1)
        except OSError as error:
            problem = _PORT_PROBLEMS.get(error.errno or 0, f"can't be used: {error.strerror}")
            raise FatalError(f"{setting}: {host}:{port} {problem}") from error
