"""The three clusters together: what they know of one another, asked afresh.

For: the questions that the story waits on. Not for: doing anything to the clusters (`site`).
Invariant: clusters are said to agree only on what each of them answered itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from meshd.client import ClientError
from meshd.demo.caller import Table
from meshd.demo.catalog import NAMESPACE
from meshd.demo.children import Child
from meshd.demo.feed import DEMOTED_FROM, Feed, Look, PeerLook, look_of
from meshd.demo.site import Site
from meshd.demo.waiting import Missing, until

CONVERGE_WITHIN_S = 30.0
HANG_ON_S = 60.0
"""How long a thing may take that depends on how busy the machine is, such as a start."""


class EndedError(Exception):
    """A process of the demo ended by itself."""

    def __init__(self, child: Child) -> None:
        super().__init__(f"{child.name} ended by itself with exit status {child.exit_status}")
        self.child = child


class Mesh:
    """All clusters of the demo."""

    def __init__(self, sites: Mapping[str, Site]) -> None:
        self.sites = sites
        self.feeds = {name: Feed(site.client) for name, site in sites.items()}

    async def follow(self) -> None:
        """Keep all feeds fresh until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, feed in self.feeds.items():
                tasks.create_task(feed.run(), name=f"read {name}")

    async def look(self, cluster: str) -> Look:
        """One cluster's status, now; raises ClientError."""
        return look_of(await self.sites[cluster].client.status())

    async def until(
        self, what: str, missing: Callable[[], Awaitable[Missing]], within_s: float = HANG_ON_S
    ) -> float:
        """Wait as `waiting.until` does, but see at once when a process ended."""

        async def still() -> Missing:
            for site in self.sites.values():
                for child in site.children:
                    if child.is_meant_to_run and child.exit_status is not None:
                        raise EndedError(child)
            try:
                return await missing()
            except ClientError as error:
                return str(error)

        return await until(what, still, within_s)

    async def until_converged(self, clusters: Sequence[str]) -> float:
        """Wait until these clusters agree on everything; returns the seconds that it took."""
        who = ", ".join(clusters)
        return await self.until(
            f"{who} converged", lambda: self.disagreement(clusters), CONVERGE_WITHIN_S
        )

    async def disagreement(self, clusters: Sequence[str]) -> Missing:
        """What these clusters disagree on: vectors, or digests from anybody's perspective."""
        vectors = {name: (await self.look(name)).vector_text for name in clusters}
        if len(set(vectors.values())) > 1:
            return f"vectors differ: {vectors}"
        digests = await self.digests(clusters)
        differing = [name for name, by in digests.items() if len(set(by.values())) > 1]
        if differing:
            return f"the same vector, but digests differ as seen by {', '.join(differing)}"
        return ""

    async def digests(self, clusters: Sequence[str]) -> dict[str, dict[str, str]]:
        """The digest of every perspective, as each of these clusters works it out."""
        return {
            perspective: {
                name: (await self.sites[name].client.tables(perspective=perspective))["digest"]
                for name in clusters
            }
            for perspective in self.sites
        }

    async def until_peers(
        self,
        what: str,
        clusters: Sequence[str],
        peers: Sequence[str],
        is_so: Callable[[PeerLook], bool],
    ) -> float:
        """Wait until these clusters see these peers so."""

        async def missing() -> Missing:
            for name in clusters:
                looks = (await self.look(name)).peers
                for peer in peers:
                    if peer != name and not is_so(looks[peer]):
                        look = looks[peer]
                        return f"{name} sees {peer} {look.phase} ({look.standing}) {look.reason}"
            return ""

        return await self.until(what, missing)

    async def until_ready(self, cluster: str) -> None:
        """Wait until a cluster's meshd says that it is ready."""

        async def missing() -> Missing:
            return "" if (await self.look(cluster)).ready else "it says that it isn't ready"

        await self.until(f"{cluster}'s meshd ready", missing)

    async def service_names(self, cluster: str) -> set[str]:
        """The services in a cluster's table."""
        table = await self.sites[cluster].client.tables(namespace=NAMESPACE)
        return {service["name"] for service in table["services"]}

    async def until_read(self) -> None:
        """Wait until all customers go by what their meshd says now; who has none is left out.

        One read may have begun before this, so it takes two.
        """
        wanted = {name: feed.reads + 2 for name, feed in self.feeds.items() if feed.look}

        async def missing() -> Missing:
            late = [name for name, reads in wanted.items() if self.feeds[name].reads < reads]
            return f"not yet in {', '.join(late)}" if late else ""

        await self.until("tables read", missing)

    async def until_tables(
        self, what: str, clusters: Sequence[str], is_so: Callable[[Table], bool]
    ) -> float:
        """Wait until the tables that customers in these clusters go by are so."""

        async def missing() -> Missing:
            wrong = [name for name in clusters if not is_so(self.feeds[name].table)]
            return f"not yet in {', '.join(wrong)}" if wrong else ""

        return await self.until(what, missing)


def has_backends_of(cluster: str) -> Callable[[Table], bool]:
    """Whether a table sends any request to a cluster."""
    return lambda table: any(
        target.cluster == cluster for targets in table.values() for target in targets
    )


def has_demoted(cluster: str) -> Callable[[Table], bool]:
    """Whether a table has backends of a cluster, all behind everybody else's."""

    def check(table: Table) -> bool:
        priorities = [
            target.priority
            for targets in table.values()
            for target in targets
            if target.cluster == cluster
        ]
        return bool(priorities) and min(priorities) >= DEMOTED_FROM

    return check
