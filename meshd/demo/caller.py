"""A client of the mesh: takes a backend from a table and sends it a real request.

For: showing what the tables are for, and how little a client needs to survive its meshd. Not for:
reading tables (`feed`) nor counting answers (`tally`). Invariant: which backends are tried, and in
which order, depends on the table and the dice alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import attrgetter

import aiohttp
import orjson

REQUEST_TIMEOUT_S = 2.0
TRIES_MAX = 6


@dataclass(frozen=True, slots=True)
class Target:
    """A backend that may take traffic. weight: its share of its tier's. share: of the service's
    traffic, its tier's, in any unit.
    """

    cluster: str
    endpoint: str
    address: str
    port: int
    priority: int
    weight: float
    share: int


Table = Mapping[str, tuple[Target, ...]]
"""Per service the backends that may take traffic; a service without any has an empty tuple."""


class Kind(StrEnum):
    """What became of a request. NO_BACKEND: the table has none, so nothing was sent."""

    ANSWERED = "answered"
    NO_BACKEND = "no backend"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. cluster, endpoint: who says to have answered. retries: backends
    that were tried in vain before.
    """

    service: str
    kind: Kind
    cluster: str = ""
    endpoint: str = ""
    retries: int = 0
    problem: str = ""


def order(targets: Sequence[Target], dice: random.Random) -> Iterator[Target]:
    """The backends in the order to try them: first a tier, at random by share, then the others one
    after the other; within each at random by weight.
    """
    by_tier = sorted(targets, key=attrgetter("priority"))
    tiers = [list(tier) for _, tier in groupby(by_tier, key=attrgetter("priority"))]
    shares = [tier[0].share for tier in tiers]
    if any(shares):
        tiers.insert(0, tiers.pop(dice.choices(range(len(tiers)), shares)[0]))
    for left in tiers:
        while left:
            weights = [target.weight for target in left]
            chosen = dice.choices(range(len(left)), weights)[0]
            yield left.pop(chosen)


class Caller:
    """Sends requests from one cluster."""

    def __init__(self, session: aiohttp.ClientSession, dice: random.Random) -> None:
        self._session = session
        self._dice = dice

    async def call(self, table: Table, service: str) -> Answer:
        """Send one request to a service."""
        retries, problem = 0, ""
        for target in order(table.get(service, ()), self._dice):
            if retries == TRIES_MAX:
                break
            try:
                said = await self._ask(target)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                retries += 1
                problem = f"{target.cluster}/{target.endpoint}: {error!r}"
                continue
            return Answer(service, Kind.ANSWERED, said["cluster"], said["endpoint"], retries)
        kind = Kind.FAILED if retries else Kind.NO_BACKEND
        return Answer(service, kind, retries=retries, problem=problem)

    async def _ask(self, target: Target) -> Mapping[str, str]:
        url = f"http://{target.address}:{target.port}/"
        async with self._session.get(url) as response:
            response.raise_for_status()
            said: Mapping[str, str] = orjson.loads(await response.read())
            return said


def open_session() -> aiohttp.ClientSession:
    """A session that opens a connection per request, as most clients of a shop's backends do."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        connector=aiohttp.TCPConnector(force_close=True, limit=64),
    )
