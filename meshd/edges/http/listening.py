"""The socket that REST listens on, and TLS on it.

For: binding, certificates, and saying in words why it can't be done. Not for: requests. Invariant:
every failure is a FatalError that names the setting to change.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

from meshd.model.errors import FatalError
from meshd.settings import HostPort, ServerTls

BACKLOG: Final = 128

_REASONS: Final = {
    errno.EADDRINUSE: "another program listens there already; stop it, or set api.listen",
    errno.EACCES: "meshd may not open that port; set api.listen to one above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; correct api.listen",
}


def bind(listen: HostPort) -> socket.socket:
    """Open the socket; raises FatalError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise FatalError(f"can't listen on {listen}: {error}; correct api.listen") from error
    try:
        # A restart must not wait for connections of its predecessor to be forgotten.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setblocking(False)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        reason = _REASONS.get(error.errno or 0, f"{error}; correct api.listen")
        raise FatalError(f"can't listen on {listen}: {reason}") from error
    return opened


def tls_context(tls: ServerTls) -> ssl.SSLContext | None:
    """How connections are encrypted, and whose certificate a client needs; None for plain HTTP."""
    if tls.cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        raise FatalError(
            f"api.tls.cert_file {tls.cert_file} and key_file {tls.key_file} can't be used: {error}"
        ) from error
    if tls.client_ca_file is not None:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise FatalError(
                f"api.tls.client_ca_file {tls.client_ca_file} can't be used: {error}"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
