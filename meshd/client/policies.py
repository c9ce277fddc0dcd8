"""Asking about policies, and setting them.

For: the part of the client that is about who may talk to whom. Not for: identities (`client`).
Invariant: as the client's: a write is repeated only with its own key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

import orjson

from meshd.client.answers import OriginItem, WriteResult
from meshd.client.calls import Calls, path_of


class PolicyConditionItem(TypedDict):
    """What is to be known of a policy."""

    type: str
    message: str


class PolicyItem(TypedDict):
    """A policy; its fields are those of `protocols/model.md`."""

    namespace: str
    name: str
    subjects: dict[str, Any]
    directions: list[str]
    ingress: list[dict[str, Any]]
    egress: list[dict[str, Any]]
    labels: dict[str, str]
    audiences: list[str]
    source: str
    conditions: list[PolicyConditionItem]
    origin: OriginItem


class PartyItem(TypedDict):
    """One end of a connection: an identity, or an address or a name outside."""

    cluster: str | None
    number: int | None
    labels: dict[str, str]
    address: str | None
    name: str | None


class PolicyOfSide(TypedDict):
    """A policy that isolates an identity."""

    namespace: str
    name: str
    origin: OriginItem


class RuleItem(PolicyOfSide):
    """A rule that allows."""

    direction: str
    index: int
    conditions: list[str]


class SideItem(TypedDict):
    """What the policies of one cluster say."""

    direction: str
    cluster: str
    verdict: str
    why: str
    policies: list[PolicyOfSide]
    rule: RuleItem | None


Check = TypedDict(
    "Check",
    {
        "verdict": str,
        "from": list[PartyItem],
        "to": list[PartyItem],
        "protocol": str,
        "port": int,
        "sides": list[SideItem],
        "notes": list[str],
        "stale": list[str],
    },
)
"""Whether one may talk to another, and why."""


class ClassItem(TypedDict):
    """Identities that no policy can tell apart."""

    cluster: str
    numbers: list[int]
    count: int
    labels: dict[str, str]


Cell = TypedDict(
    "Cell", {"from": ClassItem, "to": ClassItem, "ports": list[str], "conditional": list[str]}
)
"""What one class may reach of another."""


class MatrixPage(TypedDict):
    """Some rows of the matrix. next: the `after` of the next page; None at the end."""

    as_of: str | None
    unknown: list[str]
    sources: int
    destinations: int
    items: list[Cell]
    next: int | None


class PolicyCalls(Calls):
    """What a client can ask and say of policies."""

    async def policies(
        self, *, cluster: str = "", namespace: str = "", labels: Sequence[str] = (), as_of: str = ""
    ) -> list[PolicyItem]:
        """The policies of the cluster, or of another one."""
        query = {"cluster": cluster, "namespace": namespace, "as_of": as_of}
        return cast("list[PolicyItem]", await self._items("/v1/policies", labels, **query))

    async def policy(self, namespace: str, name: str, *, as_of: str = "") -> PolicyItem:
        """One of the cluster's own policies."""
        path = path_of("policies", namespace, name)
        return cast("PolicyItem", await self._get(path, as_of=as_of))

    async def put_policy(
        self, namespace: str, name: str, value: Mapping[str, object], *, key: str = ""
    ) -> WriteResult:
        """Add a policy, or replace what it says."""
        path = path_of("policies", namespace, name)
        return cast("WriteResult", await self._write("PUT", path, orjson.dumps(value), key))

    async def delete_policy(self, namespace: str, name: str, *, key: str = "") -> WriteResult:
        """Remove a policy."""
        path = path_of("policies", namespace, name)
        return cast("WriteResult", await self._write("DELETE", path, None, key))

    async def policy_check(
        self, source: str, destination: str, *, protocol: str = "", as_of: str = ""
    ) -> Check:
        """Whether one may talk to another."""
        query = {"from": source, "to": destination, "protocol": protocol, "as_of": as_of}
        return cast("Check", await self._get("/v1/policy/check", **query))

    async def policy_matrix(self, **query: str) -> MatrixPage:
        """A page of who may talk to whom: from_namespace, from_cluster, to_namespace, to_cluster,
        limit, after, as_of.
        """
        return cast("MatrixPage", await self._get("/v1/policy/matrix", **query))
