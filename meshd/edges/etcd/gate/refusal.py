"""Why the gate gives no answer, in gRPC's statuses and etcd's words.

For: what a client of etcd understands, so that a peer reacts as it would to an etcd. Not for:
deciding. Invariant: nothing is said that a peer may not know, such as where the etcd is.
"""

from __future__ import annotations

import grpc

from meshd.model.errors import CompactedError, MeshdError, RejectedError

DENIED = "etcdserver: permission denied"
STALE_TOKEN = "etcdserver: invalid auth token"  # noqa: S105 etcd's words, no token
NO_USER = "user name is empty"
WRONG_LOGIN = "authentication failed, invalid user ID or password"


class RefusedError(Exception):
    """A request that gets no answer but this. code: gRPC's status."""

    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.code = code


def denied(what: str = "") -> RefusedError:
    """Refuse what may not be asked for."""
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, f"{DENIED}{what and ': '}{what}")


def malformed(what: str) -> RefusedError:
    """Refuse what isn't a request."""
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, f"etcdserver: {what}")


def overloaded(what: str) -> RefusedError:
    """Refuse for now; the same request may be served later."""
    return RefusedError(grpc.StatusCode.UNAVAILABLE, f"etcdserver: too many requests: {what}")


def failed(error: MeshdError) -> RefusedError:
    """Refuse because our own etcd gave no answer. Its words may hold an address: they stay here."""
    if isinstance(error, CompactedError):
        words = "etcdserver: mvcc: required revision has been compacted"
        return RefusedError(grpc.StatusCode.OUT_OF_RANGE, words)
    if isinstance(error, RejectedError):
        return RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "meshd: the answer is too large")
    words = "meshd: the etcd behind this gate gives no answer"
    return RefusedError(grpc.StatusCode.UNAVAILABLE, words)
