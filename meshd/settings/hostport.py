"""`host:port`: where something listens or is reached.

For: the one spelling of addresses in settings. Not for: resolving names. Invariant: `str` of a
value parses as an equal value, and is what gRPC and aiohttp call a target.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

PORT_MAX = 65535

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9_])?\.?\Z")


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A host, by name or address (IPv6 without brackets), and a port. Port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than localhost counts as not."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @staticmethod
    def parse(text: str) -> HostPort:
        """Read `host:port`; raises ValueError that says what is wrong."""
        if "://" in text:
            raise ValueError("is a URL: leave the scheme out, TLS is a setting of its own")
        host, colon, port = text.rpartition(":")
        if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > PORT_MAX:
            raise ValueError(f"does not end in a port of 0..{PORT_MAX}")
        return HostPort(_host(host), int(port))


def _host(text: str) -> str:
    if not text:
        raise ValueError("has no host: 0.0.0.0 means every address of this machine")
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError("has no IPv6 address in its brackets") from None
    if ":" in text:
        raise ValueError("has an IPv6 address without brackets: write [::1]:2379")
    if not _HOST_NAME.match(text):
        raise ValueError("has a host that is neither a name nor an address")
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError("has a host that is not an IPv4 address") from None
    return text.lower()
