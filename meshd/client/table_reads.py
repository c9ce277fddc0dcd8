"""Asking for tables: as they are, were and why.

For: the part of the client that looks at tables. Not for: writing, or logs and peers (`client`).
Invariant: nothing is changed.
"""

from __future__ import annotations

from typing import cast
from urllib.parse import quote

from meshd.client.answers import HistoryPage, TableDiff
from meshd.client.calls import Calls, path_of
from meshd.client.tables import Explained, Slots, Table, TableService


class TableReads(Calls):
    """What a client can ask of tables."""

    async def tables(self, *, perspective: str = "", namespace: str = "", as_of: str = "") -> Table:
        """All global services, from this cluster's perspective or another's."""
        query = {"perspective": perspective, "namespace": namespace, "as_of": as_of}
        return cast("Table", await self._get("/v1/tables", **query))

    async def table(
        self, namespace: str, name: str, *, perspective: str = "", as_of: str = ""
    ) -> TableService:
        """One global service with all its backends."""
        path = path_of("tables", namespace, name)
        return cast("TableService", await self._get(path, perspective=perspective, as_of=as_of))

    async def diff(
        self, old: str, new: str = "", *, perspective: str = "", namespace: str = ""
    ) -> TableDiff:
        """What is different between the tables of two times or vectors. new: now if empty."""
        query = {"from": old, "to": new, "perspective": perspective, "namespace": namespace}
        return cast("TableDiff", await self._get("/v1/tables/diff", **query))

    async def history(
        self,
        kind: str,
        name: str,
        *,
        cluster: str = "",
        limit: int = 0,
        before: str = "",
        endpoints: bool = False,
    ) -> HistoryPage:
        """A page of what happened to one thing, newest first. before: the `next` of a page."""
        query = {
            "cluster": cluster,
            "limit": str(limit) if limit else "",
            "before": before,
            "endpoints": "true" if endpoints else "",
        }
        path = f"/v1/history/{quote(kind, safe='')}/{quote(name)}"
        return cast("HistoryPage", await self._get(path, **query))

    async def explain(
        self, namespace: str, name: str, *, perspective: str = "", as_of: str = ""
    ) -> Explained:
        """Why each endpoint of a service is in or out, and why its tiers take what they take."""
        path = path_of("tables", namespace, name) + "/explain"
        return cast("Explained", await self._get(path, perspective=perspective, as_of=as_of))

    async def slots(
        self, namespace: str, name: str, *, size: int = 0, perspective: str = ""
    ) -> Slots:
        """A global service as slots for consistent hashing; size: one of few, see `core.slots`."""
        path = path_of("tables", namespace, name) + "/slots"
        query = {"perspective": perspective, "size": str(size) if size else ""}
        return cast("Slots", await self._get(path, **query))
