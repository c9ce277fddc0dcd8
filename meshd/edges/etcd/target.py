"""Where an etcd is and how to speak to it.

For: the settings of one connection. Not for: reading files or names; that happens on connecting.
Invariant: a target that exists is well-formed; whether somebody answers there is another matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from meshd.model.errors import Problem, RejectedError

PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. They are read anew whenever a connection is made, so they can be replaced.

    ca_file: who may vouch for the server; None for the system's authorities.
    cert_file, key_file: who we are; both or neither.
    server_name: the name to expect in the server's certificate, where it isn't the endpoint's host.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise RejectedError(
                (Problem("tls", "cert_file and key_file go together", "give both or neither"),)
            )


@dataclass(frozen=True, slots=True)
class EtcdTarget:
    """One etcd: its members' client addresses and our credentials.

    endpoints: 'host:port', tried in this order and kept while they work; IPv6 in brackets.
    call_timeout_s: the whole time of a call, connecting and logging in included.
    connect_timeout_s: how long one silent endpoint may keep the next from being tried.
    receive_bytes_max: the largest answer; a watch's response may hold 1000 revisions.
    """

    endpoints: tuple[str, ...]
    tls: TlsFiles | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    call_timeout_s: float = 5.0
    connect_timeout_s: float = 2.0
    receive_bytes_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        problems = [
            Problem("endpoints", f"{endpoint!r} is not host:port")
            for endpoint in self.endpoints
            if not _is_host_port(endpoint)
        ]
        if not self.endpoints:
            problems.append(Problem("endpoints", "there is none"))
        if problems:
            raise RejectedError(tuple(problems))


def _is_host_port(endpoint: str) -> bool:
    host, _, port = endpoint.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()):
        return False
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return False
    return 0 < int(port) <= PORT_MAX
