"""A cluster that a fault runs beside a mesh: an etcd and a meshd that nobody has listed yet.

For: impostors, and peers whose certificates a fault issues. Not for: clusters of the mesh.
Invariants: both listen where the mesh reaches them and die with us; what they leave is below the
mesh's folder.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from chaos.etcds import Etcd, Member
from chaos.mesh.servers import MeshdServer, Watch, dying_with_us
from chaos.mesh.shape import Server

LAST_IDS = range(500, 512)
"""Of cluster ids, those that no mesh of ours comes to."""


@dataclass(frozen=True, slots=True)
class Outsider:
    """It runs. folder: where its files are."""

    etcd: Etcd
    meshd: MeshdServer
    folder: Path


def free_beside(server: Server) -> str:
    """An address of ours that a server of the mesh reaches, where nobody listens."""
    host, _, port = server.address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        # Nothing is sent: the kernel says which of our addresses it would send from.
        towards.connect((host, int(port)))
        ours = towards.getsockname()[0]
    with socket.socket() as probe:
        probe.bind((ours, 0))
        return f"{ours}:{probe.getsockname()[1]}"


async def fresh_folder(within: Path, name: str) -> Path:
    """A folder that wasn't there, as a fault may be injected again and again."""
    return Path(await asyncio.to_thread(mkdtemp, prefix=f"{name}-", dir=within))


@asynccontextmanager
async def outsider(
    folder: Path,
    seen_by: Server,
    name: str,
    number: int,
    *,
    also: str = "",
    flags: Sequence[str] = (),
) -> AsyncIterator[Outsider]:
    """Run a cluster of this name and id as long as the context lasts. folder: one without another's
    etcd. also: a URL that its etcd serves beside the plain one, which its own meshd uses. flags: of
    the etcd.
    """
    within = dying_with_us()
    member = Member("etcd", free_beside(seen_by), free_beside(seen_by), folder, within=within)
    both = ("--listen-client-urls", f"http://{member.client},{also}") if also else ()
    etcd = Etcd([member], (*flags, *both))
    async with Watch().running() as watch:
        api = free_beside(seen_by)
        meshd = MeshdServer(
            name=f"{name}/meshd",
            cluster=name,
            address=api,
            watch=watch,
            settings=(
                f"cluster.name={name}",
                f"cluster.id={number}",
                f"etcd.endpoints={member.client}",
                f"api.listen={api}",
            ),
            folder=folder,
            within=within,
        )
        try:
            await etcd.start()
            await meshd.start()
            yield Outsider(etcd, meshd, folder)
        finally:
            await meshd.kill()
            await etcd.stop()
