"""What a failed call means for its caller.

For: gRPC statuses and etcd's words for them, turned into `model.errors`. Not for: deciding whether
to try again. Invariant: a write's error is something else than OutcomeUnknownError only where etcd
or gRPC says that the write did not happen.
"""

from __future__ import annotations

import grpc

from meshd.model.errors import (
    CompactedError,
    DeniedError,
    MeshdError,
    NoSpaceError,
    NotFoundError,
    OutcomeUnknownError,
    Problem,
    RejectedError,
    TransientError,
)

_STALE_TOKEN = ("invalid auth token", "user name is empty", "revision in header is old")
"""'user name is empty' is etcd's answer to no token at all: auth was enabled after we connected."""
_WRONG_PASSWORD = "authentication failed"  # noqa: S105 — etcd's words, no password
_BAD_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "CERTIFICATE_REQUIRED", "BAD_CERTIFICATE")
_NOT_DONE = ("etcdserver: no leader", "etcdserver: too many requests")
"""With these etcd turns a request away at its door, so even a write certainly did not happen."""
_NO_ANSWER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DATA_LOSS,
    }
)
_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)
"""No user, not enough of one, a token that is no good, and a certificate's name that is no user."""


def is_stale_token(details: str) -> bool:
    """Tell whether logging in again may help. A request refused so was not carried out."""
    return any(words in details for words in _STALE_TOKEN)


def is_etcds_refusal(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether an etcd answered, and only doesn't want to answer us, or not yet.

    From 3.5.28 on its status isn't for everybody, and up to 3.5.30 for root alone.
    """
    return error.code() in _REFUSALS and (error.details() or "").startswith("etcdserver: ")


def may_be_stale(cancel_reason: str) -> bool:
    """Tell whether a watch was perhaps refused for its token.

    Some versions, 3.5.1 among them, call an invalid token 'permission denied' here.
    """
    return is_stale_token(cancel_reason) or "permission denied" in cancel_reason


def is_no_answer(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether another endpoint might do better."""
    return error.code() in _NO_ANSWER


def details_of(error: grpc.aio.AioRpcError) -> str:
    """Return what went wrong, in the words of whoever found it."""
    return f"{error.details() or 'no details'} ({error.code().name})"


def not_connected(why: str) -> MeshdError:
    """Build the error of a call that was never sent, because nobody could be reached."""
    if any(words in why for words in _BAD_CERTIFICATE):
        return DeniedError(why)
    return TransientError(why)


def translate(error: grpc.aio.AioRpcError, who: str, *, writes: bool) -> MeshdError:
    """Turn a failed call into the error that names the right reaction. who: the endpoint."""
    code, words = error.code(), error.details() or ""
    what = f"{who}: {details_of(error)}"
    if code in _NO_ANSWER:
        is_unknown = writes and not any(said in words for said in _NOT_DONE)
        return OutcomeUnknownError(what) if is_unknown else TransientError(what)
    if code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}:
        return DeniedError(what)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _exhausted(words, what, writes=writes)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        is_denied = is_stale_token(words) or _WRONG_PASSWORD in words
        return DeniedError(what) if is_denied else _rejected(what)
    return _refused(code, words, what)


def translate_cancel(reason: str, compact_revision: int, who: str) -> MeshdError:
    """Turn a watch's cancellation into an error."""
    if compact_revision:
        return CompactedError(compact_revision)
    if may_be_stale(reason):
        return DeniedError(f"{who}: {reason}")
    return TransientError(f"{who}: watch cancelled: {reason or 'no reason given'}")


def _refused(code: grpc.StatusCode, words: str, what: str) -> MeshdError:
    """Etcd refuses these before it does anything."""
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFoundError(what)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return TransientError(f"{what}; is this an etcd 3.4 or newer?")
    if "required revision has been compacted" in words:
        # etcd doesn't say here which revision is the oldest left; `kv` finds out.
        return CompactedError(0)
    if "too large lease TTL" in words:
        return _rejected(what)
    return TransientError(what)


def _exhausted(words: str, what: str, *, writes: bool) -> MeshdError:
    if "database space exceeded" in words:
        return NoSpaceError(what)
    if any(said in words for said in _NOT_DONE):
        return TransientError(what)
    # Go's gRPC, so etcd, begins like this, and then the request was never read. Ours words it
    # differently, and then it was carried out but the answer is too large for us.
    if writes and "grpc: received message larger" not in words:
        return OutcomeUnknownError(what)
    return _rejected(what)


def _rejected(what: str) -> RejectedError:
    return RejectedError((Problem("etcd request", what),))
