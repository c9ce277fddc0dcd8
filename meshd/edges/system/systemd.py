"""Telling systemd how we are (sd_notify(3)).

For: Type=notify units and their watchdog. Not for: anything when NOTIFY_SOCKET isn't set.
"""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send one state, such as READY=1; a systemd that can't be told is none of our trouble."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.connect(address)
            channel.send(state.encode())
        except OSError:
            return


def watchdog_interval_s() -> float:
    """How often systemd wants to hear from us: half its patience, 0 if it doesn't."""
    patience_us = os.environ.get("WATCHDOG_USEC", "")
    return int(patience_us) / 2_000_000 if patience_us.isdecimal() else 0.0
