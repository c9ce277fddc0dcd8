"""What every step of the story uses: the mesh, the traffic, the telling, and time to look.

For: the few actions that several steps share. Not for: any one step. Invariant: a finding reaches
the scene, whatever it says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshd.demo.catalog import CLUSTERS, Trouble
from meshd.demo.children import Children
from meshd.demo.expect import shares
from meshd.demo.manifests import manifest
from meshd.demo.mesh import Mesh
from meshd.demo.scene import Finding, Scene, Step
from meshd.demo.site import Site
from meshd.demo.tally import Tally
from meshd.demo.traffic import Traffic

BURST = 60
"""Requests per service and cluster: enough to tell 40 % from 20 %."""
CONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """The mesh and what is done with it. pace: 0 leaves out the pauses, which are for people."""

    mesh: Mesh
    scene: Scene
    traffic: Traffic
    children: Children
    pace: float

    async def pause(self, seconds: float) -> None:
        """Give a person time to look; nothing depends on it."""
        await asyncio.sleep(seconds * self.pace)

    async def apply(self, site: Site, *, ready: bool = True) -> None:
        """Apply a cluster's manifest. ready: False takes all its backends out."""
        text = manifest(site.place, site.offers, ready=ready)
        result = await site.client.apply(text.encode())
        self.scene.did(
            f"{site.name}: applied {len(result['applied'])} documents"
            f"{'' if ready else ' that say `ready: false`'}: {result['events']} events"
        )

    async def measure(
        self, step: Step, label: str, callers: Sequence[str], trouble: Trouble
    ) -> Tally:
        """Send a burst from these clusters and judge its shares."""
        await self.mesh.until_read()
        tally = step.requests[label] = Tally()
        await self.traffic.burst(tally, callers, BURST)
        self.find(shares(tally, callers, trouble))
        return tally

    def find(self, findings: Iterable[Finding]) -> None:
        """Tell findings."""
        for finding in findings:
            self.scene.find(finding)

    async def converged(self, step: Step, clusters: Sequence[str] = CLUSTERS) -> None:
        """Wait until these clusters agree, note how long it took, and say on what they agree."""
        step.timings["converged"] = seconds = await self.mesh.until_converged(clusters)
        self.scene.did(f"{' = '.join(clusters)} after {seconds:.2f} s")
        self.find([await self._agreement(clusters)])

    async def _agreement(self, clusters: Sequence[str]) -> Finding:
        digests = await self.mesh.digests(clusters)
        ok = all(len(set(by.values())) == 1 for by in digests.values())
        words = [f"{name} {min(by.values())[:8]}" for name, by in digests.items()]
        what = f"{len(clusters)} clusters compute the same digest from every perspective"
        return Finding(what, ok, ", ".join(words))


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self._began_s


async def unreachable(host: str, port: int) -> str:
    """Why nobody can be reached there, empty if somebody can."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        return f"{host}:{port}: {str(error) or 'no answer'}"
    writer.close()
    return ""
