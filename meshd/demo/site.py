"""One cluster of the demo: its files, its processes, and how it is killed.

For: what a machine room would be. Not for: what goes on in the mesh (`feed`), nor the order of
things (`story`). Invariant: the cluster's data is in its folder and survives everything but the
demo's end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from meshd.client import Client
from meshd.demo.catalog import offers_of
from meshd.demo.children import Child, Children
from meshd.demo.configuration import configuration
from meshd.demo.manifests import manifest, our_endpoint
from meshd.demo.places import SHOP_PORT, Place
from meshd.demo.shop import Server
from meshd.edges.embedded import EmbeddedConfig
from meshd.edges.embedded.orphan import find_orphan

CONFIGURATION_FILE = "meshd.yaml"
MANIFEST_FILE = "shop.yaml"


class Site:
    """One cluster."""

    def __init__(self, place: Place, folder: Path, children: Children, client: Client) -> None:
        self.place = place
        self.name = place.cluster
        self.client = client
        self.folder = folder / place.cluster
        self.offers = offers_of(place.cluster)
        self.meshd = children.add(
            f"{self.name}-meshd",
            ["-m", "meshd", "run", "--config", str(self.folder / CONFIGURATION_FILE)],
        )
        self.shop = children.add(f"{self.name}-shop", ["-m", "meshd.demo.shop", *self._serving()])

    @property
    def manifest_file(self) -> Path:
        """The shop as this cluster's manifest."""
        return self.folder / MANIFEST_FILE

    @property
    def children(self) -> tuple[Child, Child]:
        """Its processes, but for the etcd that is meshd's."""
        return self.meshd, self.shop

    def write_files(self, peers: Iterable[Place], *, allow_unsafe: bool) -> None:
        """Make the folder with configuration and manifest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = configuration(self.place, peers, allow_unsafe=allow_unsafe)
        (self.folder / CONFIGURATION_FILE).write_text(text)
        self.manifest_file.write_text(manifest(self.place, self.offers))

    def _serving(self) -> list[str]:
        port = self.place.port(SHOP_PORT)
        servers = [
            Server(offer.service, spot.name, self.place.endpoint_address(spot.host), port)
            for offer in self.offers
            for spot in offer.spots
        ]
        return ["--cluster", self.name, "--serve", *map(str, servers)]

    def endpoint_names(self, service: str) -> list[str]:
        """What its endpoints of a service are called."""
        return [s.name for offer in self.offers if offer.service == service for s in offer.spots]

    def endpoint(self, service: str, name: str) -> dict[str, object]:
        """One of its endpoints, as REST takes it."""
        spots = [spot for offer in self.offers if offer.service == service for spot in offer.spots]
        return our_endpoint(self.place, next(spot for spot in spots if spot.name == name))

    @property
    def endpoints(self) -> int:
        """How many HTTP servers it has."""
        return sum(len(offer.spots) for offer in self.offers)

    @property
    def last_endpoint(self) -> tuple[str, int]:
        """The one that opens last."""
        host = max(spot.host for offer in self.offers for spot in offer.spots)
        return self.place.endpoint_address(host), self.place.port(SHOP_PORT)

    @property
    def etcd_pid(self) -> int | None:
        """The process id of its etcd while that runs."""
        return find_orphan(EmbeddedConfig(data_dir=self.folder / "etcd"))

    async def kill_control_plane(self) -> str:
        """SIGKILL to etcd and meshd; returns whom. The shop lives on.

        meshd is stopped first, or it would have started another etcd before its own turn came.
        """
        etcd_pid, meshd_pid = self.etcd_pid, self.meshd.pid
        self.meshd.is_meant_to_run = False
        self.meshd.send(signal.SIGSTOP)
        if etcd_pid is not None:
            os.kill(etcd_pid, signal.SIGKILL)
        self.meshd.send(signal.SIGKILL)
        await self.meshd.wait()
        return f"etcd (process {etcd_pid}) and meshd (process {meshd_pid})"
