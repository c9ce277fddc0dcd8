"""Registrations: endpoints bound to a lease each, in every meshd of a cluster.

For: registering, renewing and deregistering, by whichever meshd is asked. Not for: removing the
endpoints of those that ran out (`expiry`), nor who may have which name (`core.registered`).
Invariants: a registration's key is written before its endpoint is, and the endpoint is written only
while that key is there, so a crash in between leaves no endpoint without a time to live; renewing
writes nothing and makes no event.

One lease for each, so that each ends by itself and any meshd can renew it. Leases that are renewed
together cost one stream and not a call each: 0.24 ms of processor time rather than 0.93.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from meshd.core.registered import is_registered
from meshd.model.command import (
    DropRegistered,
    HealthCommand,
    Outcome,
    RegisterEndpoint,
    Submission,
)
from meshd.model.errors import (
    MeshdError,
    MovedError,
    NotFoundError,
    OverloadedError,
    Problem,
    TransientError,
)
from meshd.model.ids import EndpointKey
from meshd.model.keyspace import Keyspace, prefix_end
from meshd.model.registration import Registering, Registration
from meshd.runtime.guards import Guards
from meshd.runtime.ports import (
    Clock,
    CreateRevisionIs,
    KeyValue,
    Kv,
    ModRevisionIs,
    Put,
    Txn,
    WatchResponse,
)
from meshd.runtime.projector import Projector
from meshd.runtime.writer import Writer
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

READ_AT_ONCE = 2000
"""Keys of a range: some 100 KiB."""
READS_MAX = 1000
"""More than any bound on registrations: the reading ends."""
RETRY_S_MAX = 5.0
LEFT_ASKED_AT_ONCE = 50
"""How many leases are asked about at a time, for a list."""
RETRY_AFTER_S = 5.0
READ_AGAIN_S = 300.0
"""All keys are read anew so often, should a watch have gone quiet without ending."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Who wants what of a registration. cause: the caller's idempotency key."""

    key: EndpointKey
    holder: str
    actor: str
    cause: str = ""

    def submission(self, command: HealthCommand) -> Submission:
        """What is to be written for it."""
        return Submission((command,), self.actor, self.cause)


@dataclass(frozen=True, slots=True)
class Live:
    """A registration as its key says, and what it is bound to."""

    value: Registration
    lease: int
    revision: int


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of asking to renew several. gone: register these anew."""

    renewed: int
    gone: tuple[EndpointKey, ...]


class Registrations:
    """All registrations of the cluster, as far as this meshd has heard.

    is_known: they have been read to the end. dropped: what is no longer registered, for the leader
    to look at; woken: set when something is.
    """

    def __init__(
        self,
        kv: Kv,
        keyspace: Keyspace,
        projector: Projector,
        writer: Writer,
        clock: Clock,
        registrations_max: int,
    ) -> None:
        self._kv = kv
        self._keyspace = keyspace
        self._projector = projector
        self._writer = writer
        self._clock = clock
        self._max = registrations_max
        self._live: dict[EndpointKey, Live] = {}
        self.is_known = False
        self.dropped: set[EndpointKey] = set()
        self.woken = asyncio.Event()

    @property
    def live(self) -> Mapping[EndpointKey, Live]:
        """Those that are there, as far as is known; to be read, never written."""
        return self._live

    # Following what all meshds of the cluster have registered.

    async def run(self) -> None:
        """Follow the keys for ever."""
        while True:
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(MeshdError),
                wait=wait_random_exponential(multiplier=0.1, max=RETRY_S_MAX),
                sleep=self._clock.sleep,
            )
            async for attempt in retrying:
                with attempt:
                    await self._follow()

    async def _follow(self) -> None:
        """Read all keys, then what changes, for a while."""
        revision = await self._read()
        start = self._keyspace.registrations
        watching = self._kv.watch(start, prefix_end(start), start_revision=revision + 1)
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_AGAIN_S), watching as responses:
                await self._take_all(responses)

    async def _take_all(self, responses: AsyncIterator[WatchResponse]) -> None:
        async for response in responses:
            for event in response.events:
                self._take(event.kv, is_gone=event.is_delete)

    async def _read(self) -> int:
        """All keys as they are at one revision, which is returned."""
        key = self._keyspace.registrations
        end, revision, found = prefix_end(key), 0, list[KeyValue]()
        for _ in range(READS_MAX):
            got = await self._kv.range(key, end, limit=READ_AT_ONCE, revision=revision)
            revision = revision or got.revision
            found += got.kvs
            if not got.more:
                break
            key = got.kvs[-1].key + b"\x00"
        before = self._live.keys()
        self._live = {}
        for kv in found:
            self._take(kv, is_gone=False)
        for gone in before - self._live.keys():
            self._drop(gone)
        self.is_known = True
        return revision

    def _take(self, kv: KeyValue, *, is_gone: bool) -> None:
        name = kv.key.removeprefix(self._keyspace.registrations).decode(errors="replace")
        try:
            key = EndpointKey.parse(name)
            if is_gone:
                self._live.pop(key, None)
                self._drop(key)
            else:
                value = Registration.decode(kv.value, f"registration {name}")
                self._live[key] = Live(value, kv.lease, kv.mod_revision)
        except MeshdError as error:
            log.warning("a registration that can't be read counts for none", reason=str(error))
        metrics.REGISTRATIONS.set(len(self._live))

    def _drop(self, key: EndpointKey) -> None:
        self.dropped.add(key)
        self.woken.set()

    # What callers ask for.

    async def register(self, wish: Wish, said: Registering) -> Outcome:
        """Register an endpoint, or keep it registered with another value or time.

        Raises MovedError while another holder has it, RejectedError where it is no registration's,
        OverloadedError where there are too many.
        """
        known = await self._find(wish.key)
        if known is not None and known.value.holder != wish.holder:
            raise _held(wish.key, known)
        live = await self._keep(wish, said.ttl_s, known)
        guard = ModRevisionIs(self._keyspace.registration(wish.key), live.revision)
        command = RegisterEndpoint(wish.key, said.endpoint)
        try:
            return await self._writer.submit(wish.submission(command), (guard,))
        except MeshdError:
            if known is None:
                # Whatever became of the endpoint: without its key it isn't there for long.
                with suppress(MeshdError):
                    await self._kv.revoke_lease(live.lease)
            raise

    async def _keep(self, wish: Wish, ttl_s: int, known: Live | None) -> Live:
        """The key of a registration, with the time to live that is asked for."""
        if known is not None and known.value.ttl_s == ttl_s:
            if await self._kv.keep_lease(known.lease):
                return known
            raise TransientError(f"the registration of {wish.key} just ran out; nothing was done")
        if known is None and len(self._live) >= self._max:
            raise OverloadedError(f"the list of {self._max} registrations", RETRY_AFTER_S)
        value = Registration(ttl_s, wish.holder, wish.actor, self._clock.wall_ms())
        key = self._keyspace.registration(wish.key)
        lease = await self._kv.grant_lease(ttl_s)
        compare = ModRevisionIs(key, known.revision if known is not None else 0)
        result = await self._kv.commit(
            Txn(compares=(compare,), success=(Put(key, value.encode(), lease),))
        )
        if not result.succeeded:
            await self._kv.revoke_lease(lease)
            raise TransientError(f"somebody else just registered {wish.key}; nothing was done")
        if known is not None:
            await self._kv.revoke_lease(known.lease)
        return Live(value, lease, result.revision)

    async def renew(self, keys: Iterable[EndpointKey], holder: str | None = None) -> Renewed:
        """Renew several. holder: only what this one registered; None for whoever did."""
        found = [(key, await self._known(key)) for key in dict.fromkeys(keys)]
        mine = [
            (key, live.lease)
            for key, live in found
            if live is not None and holder in {None, live.value.holder}
        ]
        left_s = await self._kv.keep_leases([lease for _, lease in mine]) if mine else []
        kept = {key for (key, _), left in zip(mine, left_s, strict=True) if left > 0}
        kept = {key for key in kept if self._has_endpoint(key)}
        gone = tuple(key for key, _ in found if key not in kept)
        metrics.REGISTRATION_RENEWALS.inc(len(kept))
        return Renewed(len(kept), gone)

    async def deregister(self, wish: Wish) -> Outcome:
        """Remove a registration and its endpoint; raises NotFoundError if there is neither."""
        known = await self._find(wish.key)
        if known is not None and wish.holder not in {"", known.value.holder}:
            raise _held(wish.key, known)
        if known is None and not self._has_endpoint(wish.key):
            raise NotFoundError(f"there is no registration {wish.key}")
        if known is not None:
            await self._kv.revoke_lease(known.lease)
        command = wish.submission(DropRegistered(wish.key))
        return await self._writer.submit(command, self.absence(wish.key))

    async def left_s(self, leases: Iterable[int]) -> dict[int, float]:
        """The seconds that leases have left."""
        waiting, left = iter(list(leases)), dict[int, float]()

        async def ask() -> None:
            for lease in waiting:
                left[lease] = await self._kv.lease_left_s(lease)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(LEFT_ASKED_AT_ONCE):
                tasks.create_task(ask())
        return left

    def absence(self, key: EndpointKey) -> Guards:
        """What holds while an endpoint isn't registered."""
        return (CreateRevisionIs(self._keyspace.registration(key), 0),)

    def _has_endpoint(self, key: EndpointKey) -> bool:
        """Whether the log has the endpoint of a registration, as far as it is folded here."""
        state = self._projector.state(self._projector.own)
        return state is not None and is_registered(state.endpoint(key))

    async def _known(self, key: EndpointKey) -> Live | None:
        """A registration, asked for only if this meshd hasn't heard of it yet."""
        return self._live.get(key) or await self._find(key)

    async def _find(self, key: EndpointKey) -> Live | None:
        """A registration as the etcd has it now."""
        found = await self._kv.range(self._keyspace.registration(key))
        if not found.kvs:
            return None
        kv = found.kvs[0]
        return Live(Registration.decode(kv.value, f"registration {key}"), kv.lease, kv.mod_revision)


def _held(key: EndpointKey, live: Live) -> MovedError:
    who = live.value.holder or "somebody without a name"
    what = f"is registered by {who} ({live.value.actor}), for {live.value.ttl_s} s at a time"
    remedy = "use another name, or wait until that one stops renewing it"
    return MovedError((Problem(f"registration {key}", what, remedy),))
