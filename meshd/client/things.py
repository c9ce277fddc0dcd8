"""Asking for nodes and identities.

For: the part of the client that reads, sets and removes them. Not for: what they mean. Invariant:
as of every write, each call is done at most once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import orjson

from meshd.client.answers import IdentityItem, IdentityResult, NodeItem, WriteResult
from meshd.client.calls import Calls, path_of


class ThingCalls(Calls):
    """What a client can ask of nodes and identities."""

    async def nodes(
        self, *, cluster: str = "", labels: Sequence[str] = (), as_of: str = ""
    ) -> list[NodeItem]:
        """The nodes of the cluster, or of another one. labels: each `name=value` or `name`."""
        found = await self._items("/v1/nodes", labels, cluster=cluster, as_of=as_of)
        return cast("list[NodeItem]", found)

    async def node(self, name: str) -> NodeItem:
        """One of the cluster's own nodes."""
        return cast("NodeItem", await self._get(path_of("nodes", name)))

    async def put_node(
        self, name: str, value: Mapping[str, object], *, key: str = ""
    ) -> WriteResult:
        """Add a node, or replace what is said of it."""
        body = orjson.dumps(value)
        return cast("WriteResult", await self._write("PUT", path_of("nodes", name), body, key))

    async def delete_node(self, name: str, *, key: str = "") -> WriteResult:
        """Remove a node."""
        return cast("WriteResult", await self._write("DELETE", path_of("nodes", name), None, key))

    async def identities(
        self, *, cluster: str = "", labels: Sequence[str] = (), as_of: str = ""
    ) -> list[IdentityItem]:
        """The identities of the cluster, or of another one."""
        found = await self._items("/v1/identities", labels, cluster=cluster, as_of=as_of)
        return cast("list[IdentityItem]", found)

    async def identity(self, number: int) -> IdentityItem:
        """One of the cluster's own identities."""
        return cast("IdentityItem", await self._get(path_of("identities", str(number))))

    async def allocate_identity(
        self, labels: Mapping[str, str], *, audiences: Sequence[str] = (), key: str = ""
    ) -> IdentityResult:
        """Give a set of labels its number: the same one each time."""
        value: dict[str, object] = {"labels": dict(labels)}
        if audiences:
            value["audiences"] = list(audiences)
        found = await self._write("POST", "/v1/identities", orjson.dumps(value), key)
        return cast("IdentityResult", found)

    async def delete_identity(self, number: int, *, key: str = "") -> WriteResult:
        """Take an identity's number back."""
        path = path_of("identities", str(number))
        return cast("WriteResult", await self._write("DELETE", path, None, key))
