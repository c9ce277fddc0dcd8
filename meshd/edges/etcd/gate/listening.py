"""The port that the gate listens on, and TLS on it.

For: gRPC's options, binding, certificates. Not for: requests. Invariants: every failure is a
FatalError that names the setting to change; a certificate that was replaced is shown to the next
connection, and one that can't be read leaves the last good one in place.
"""

from __future__ import annotations

import grpc
import structlog

from meshd.edges.etcd.gate.limits import (
    KEEPALIVE_MS,
    KEEPALIVE_TIMEOUT_MS,
    PING_MS_MIN,
    REQUEST_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
)
from meshd.model.errors import FatalError
from meshd.settings import HostPort, ServerTls

log = structlog.get_logger(__name__)

OPTIONS = (
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # The name of the constant in C has RECV in it; this is what it stands for.
    ("grpc.http2.min_ping_interval_without_data_ms", PING_MS_MIN),
    # Else two meshds could listen on one port, and each would get some of the connections.
    ("grpc.so_reuseport", 0),
)


def open_port(server: grpc.aio.Server, listen: HostPort, tls: ServerTls) -> None:
    """Bind; raises FatalError."""
    try:
        if tls.cert_file is None:
            server.add_insecure_port(str(listen))
        else:
            server.add_secure_port(str(listen), _credentials(tls))
    except RuntimeError as error:
        raise FatalError(
            f"can't listen on {listen}: {error}; stop what listens there, or correct gate.listen"
        ) from error


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC for each connection, in a thread of its own."""
        try:
            return _configuration(tls)
        except OSError as error:
            log.warning("the gate keeps the certificate that it has", reason=str(error))
            return None

    try:
        first = _configuration(tls)
    except OSError as error:
        raise FatalError(f"gate.tls can't be used: {error}") from error
    return grpc.dynamic_ssl_server_credentials(
        first, renewed, require_client_authentication=tls.client_ca_file is not None
    )


def _configuration(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    if tls.cert_file is None or tls.key_file is None:
        raise FatalError("gate.tls needs cert_file and key_file")
    pair = (tls.key_file.read_bytes(), tls.cert_file.read_bytes())
    ca = tls.client_ca_file.read_bytes() if tls.client_ca_file is not None else None
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=ca)
