"""Who reads through the gate: telling them apart, and what each has under way.

For: passwords, tokens, certificates' names, and limits per reader. Not for: what may be read
(`requests`). Invariants: a token is good only as long as the password that it was given for, and
this process; a reader whose password changed has no stream that was opened before.

A token is a keyed hash of name and password: there is no list of tokens that could grow.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import structlog

from meshd.core.budget import Bucket
from meshd.core.permit import Permit
from meshd.edges.etcd.gate.limits import (
    BURST_S,
    BYTES_PER_S,
    CALLS_PER_S,
    PAUSE_S_MAX,
    READS_AT_ONCE,
    READS_WAITING_MAX,
    RECHECK_S,
    WATCHES_MAX,
)
from meshd.edges.etcd.gate.refusal import (
    NO_USER,
    STALE_TOKEN,
    WRONG_LOGIN,
    RefusedError,
    malformed,
    overloaded,
)
from meshd.model.errors import FatalError
from meshd.model.keyspace import Keyspace
from meshd.settings import GateReader, secret_text
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)


class Reader:
    """One reader, and what it has under way. password: '' while it has none that is good, and then
    trouble says why.
    """

    def __init__(self, settings: GateReader, keyspace: Keyspace) -> None:
        self.name = settings.name
        self.permit = Permit(keyspace, settings.audience)
        self.password_file = settings.password_file
        self.password = ""
        self.trouble = ""
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._waiting = 0
        self._watches = 0
        self._revocable: set[asyncio.Timeout] = set()
        self._calls = Bucket(CALLS_PER_S, CALLS_PER_S * BURST_S)
        self._bytes = Bucket(BYTES_PER_S, BYTES_PER_S * BURST_S)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Have a place for one read, waiting for it if need be."""
        if self._waiting >= READS_WAITING_MAX:
            raise overloaded(f"{self.name} has {READS_WAITING_MAX} reads waiting")
        self._waiting += 1
        try:
            await self._reads.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._reads.release()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Have a place for one watch."""
        if self._watches >= WATCHES_MAX:
            raise overloaded(f"{self.name} has {WATCHES_MAX} watches")
        self._watches += 1
        metrics.GATE_WATCHES.labels(self.name).set(self._watches)
        try:
            yield
        finally:
            self._watches -= 1
            metrics.GATE_WATCHES.labels(self.name).set(self._watches)

    @asynccontextmanager
    async def until_revoked(self) -> AsyncIterator[None]:
        """End what is inside, by TimeoutError, when the reader is revoked."""
        async with asyncio.timeout(None) as limit:
            self._revocable.add(limit)
            try:
                yield
            finally:
                self._revocable.discard(limit)

    def pause_s(self, size_bytes: int, now_s: float) -> float:
        """Count an answer; returns how long its reader has to wait for asking so much."""
        wait_s = max(self._calls.take(1, now_s), self._bytes.take(size_bytes, now_s))
        return min(PAUSE_S_MAX, wait_s)

    def take(self, password: str, trouble: str) -> None:
        """Take its password as it is now. Another one ends its watches."""
        if trouble and trouble != self.trouble:
            log.warning("a reader of the gate is let in no more", reader=self.name, reason=trouble)
        self.trouble = trouble
        if password != self.password:
            self.password = password
            while self._revocable:
                self._revocable.pop().reschedule(asyncio.get_running_loop().time())


class Readers:
    """All of them, by name."""

    def __init__(self, settings: Iterable[GateReader], keyspace: Keyspace) -> None:
        self._readers = {one.name: Reader(one, keyspace) for one in settings}
        self._key = secrets.token_bytes(32)

    async def keep(self) -> None:
        """Look at the password files for ever."""
        while True:
            await self.renew()
            await asyncio.sleep(RECHECK_S)

    async def renew(self) -> None:
        """Take the passwords as their files have them now."""
        found = await asyncio.to_thread(
            lambda: {
                name: _password(reader.password_file)
                for name, reader in self._readers.items()
                if reader.password_file is not None
            }
        )
        for name, (password, trouble) in found.items():
            self._readers[name].take(password, trouble)

    def log_in(self, name: str, password: str) -> str:
        """Give a token to who knows the password."""
        reader = self._readers.get(name)
        expected = reader.password if reader is not None else ""
        # Compared whatever the name is, so that time doesn't tell which names there are.
        is_right = hmac.compare_digest(password.encode(), expected.encode())
        if not (is_right and expected):
            raise malformed(WRONG_LOGIN)
        return self._token(name, expected)

    def who(self, token: str | None, certificate_names: Iterable[str]) -> Reader:
        """Tell who asks, by its token or else by its certificate, which TLS has checked."""
        if token:
            reader = self._readers.get(token.rpartition(".")[0])
            if reader is None or not self._is_good(token, reader):
                raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, STALE_TOKEN)
            return reader
        for name in certificate_names:
            reader = self._readers.get(name)
            if reader is not None and reader.password_file is None:
                return reader
        raise malformed(NO_USER)

    def _is_good(self, token: str, reader: Reader) -> bool:
        expected = self._token(reader.name, reader.password)
        return hmac.compare_digest(token.encode(errors="replace"), expected.encode())

    def _token(self, name: str, password: str) -> str:
        seal = hmac.new(self._key, f"{name}\0{password}".encode(), hashlib.sha256)
        return f"{name}.{seal.hexdigest()}"


def _password(file: Path) -> tuple[str, str]:
    """The password, or '' and why there is none."""
    try:
        return secret_text(file), ""
    except FatalError as error:
        return "", str(error)
