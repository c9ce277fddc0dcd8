"""What is asked of a cluster: services, endpoints, drains and policies, drawn from a seed.

For: `commands`. Not for: sending. Invariants: the same seed draws the same commands; each is small
enough to be one operation, which meshd doesn't cut into portions; no services but its own are
touched, so that what else is in a cluster stays.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

NAMESPACE: Final = "chaos"
SERVICES: Final = ("web", "cart", "ledger")
"""They are always there; what becomes of them is drawn."""
EXTRA: Final = "extra"
"""Comes and goes with its endpoints."""
ENDPOINTS: Final = 6
"""Of each service in each cluster: a table has all clusters', and each is read many times."""
POLICIES: Final = 4
PORTS: Final = ({"port": 80, "name": "http"},)


@dataclass(frozen=True, slots=True)
class Command:
    """A request that changes something."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class Mix:
    """Draws the commands of one client. number: its cluster's. caller: its own name."""

    number: int
    chance: random.Random
    caller: str
    _drains: int = 0
    _draws: Mapping[Callable[[], Command], int] = field(init=False)

    def __post_init__(self) -> None:
        self._draws = {
            self._put_endpoint: 60,
            self._delete_endpoint: 8,
            self._put_service: 12,
            self._put_extra: 3,
            self._delete_extra: 2,
            self._put_policy: 5,
            self._delete_policy: 3,
            self._turn: 4,
            self._describe: 3,
        }

    def beginnings(self) -> Iterator[Command]:
        """What has to be there at first."""
        for service in SERVICES:
            yield Command("PUT", _service(service), _shown())
            for number in range(2):
                body = {"address": self._address(service, number)}
                yield Command("PUT", f"{_service(service)}/endpoints/e{number}", body)

    def draw(self) -> Command:
        """The next one."""
        return self.chance.choices(list(self._draws), list(self._draws.values()))[0]()

    def _address(self, service: str, number: int) -> str:
        """Which tells whose it is; some endpoints move now and then."""
        place = (*SERVICES, EXTRA).index(service)
        return f"10.{self.number}.{place}.{number + 100 * self.chance.randrange(2)}"

    def _one_of_all(self) -> str:
        return self.chance.choice((*SERVICES, *SERVICES, EXTRA))

    def _endpoint(self) -> tuple[str, int]:
        return self.chance.choice(SERVICES), self.chance.randrange(ENDPOINTS)

    def _put_endpoint(self) -> Command:
        service, number = self._endpoint()
        body: dict[str, Any] = {
            "address": self._address(service, number),
            "weight": self.chance.choice((0, 50, 100, 100, 200)),
            "ready": self.chance.random() < 0.8,  # noqa: PLR2004 one in five isn't
            "labels": {"turn": str(self.chance.randrange(100))},
        }
        if self.chance.random() < 0.1:  # noqa: PLR2004 one in ten
            body["terminating"] = True
        return Command("PUT", f"{_service(service)}/endpoints/e{number}", body)

    def _delete_endpoint(self) -> Command:
        service, number = self._endpoint()
        return Command("DELETE", f"{_service(service)}/endpoints/e{number}")

    def _put_service(self) -> Command:
        body = _shown() | {
            "weight": self.chance.choice((50, 100, 150)),
            "labels": {"turn": str(self.chance.randrange(100))},
            "affinity": self.chance.choice(("none", "none", "local", "remote")),
        }
        if self.chance.random() < 0.1:  # noqa: PLR2004 one in ten
            body["shared"] = False
        return Command("PUT", _service(self.chance.choice(SERVICES)), body)

    def _put_extra(self) -> Command:
        if self.chance.random() < 0.5:  # noqa: PLR2004 half and half
            return Command("PUT", _service(EXTRA), _shown())
        number = self.chance.randrange(ENDPOINTS)
        body = {"address": self._address(EXTRA, number)}
        return Command("PUT", f"{_service(EXTRA)}/endpoints/e{number}", body)

    def _delete_extra(self) -> Command:
        return Command("DELETE", _service(EXTRA))

    def _policy(self) -> str:
        return f"/v1/policies/{NAMESPACE}/p{self.chance.randrange(POLICIES)}"

    def _put_policy(self) -> Command:
        port = self.chance.choice((80, 443, 8080))
        peer = {"labels": {"labels": {"app": self.chance.choice(SERVICES)}}}
        body = {
            "subjects": {"labels": {"app": self.chance.choice(SERVICES)}},
            "ingress": [{"peers": [peer], "ports": [{"port": port}]}],
        }
        return Command("PUT", self._policy(), body)

    def _delete_policy(self) -> Command:
        return Command("DELETE", self._policy())

    def _turn(self) -> Command:
        """Drain an endpoint or undrain one. It is forced: what would be left is not the point."""
        self._drains += 1
        service, number = self._endpoint()
        body = {
            "name": f"turn-{self.caller}-{self._drains}",
            "kind": self.chance.choice(("drain", "undrain")),
            "subjects": [f"endpoint/{NAMESPACE}/{service}/e{number}"],
            "force": True,
        }
        return Command("POST", "/v1/operations", body)

    def _describe(self) -> Command:
        """Say how the cluster is; it is active twice as often as not."""
        state = self.chance.choice(("active", "active", "draining"))
        body = {"state": state, "weight": self.chance.choice((50, 100))}
        return Command("PUT", "/v1/cluster", body)


def _service(name: str) -> str:
    return f"/v1/services/{NAMESPACE}/{name}"


def _shown() -> dict[str, Any]:
    """A service that all clusters have in common."""
    return {"global": True, "ports": list(PORTS)}
