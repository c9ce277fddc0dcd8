"""Row 18: the right to read a cluster's log is taken from its peers.

For: etcds that begin to ask who is there. Not for: certificates (`trust`). Invariants: the
cluster's own meshds have a user of their own meanwhile and go on; what the rights are worth that a
peer could have is tried and recorded; afterwards the etcd asks nobody again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import SOON, etcd_of, first_of, running, until
from chaos.faults.rights import OWN, SECRET, open_again, secure, tried
from chaos.history import Attempt
from chaos.mesh.shape import Cluster, Kind, Power, Server

WORDS: Final = ("permission denied", "user name is empty", "auth")
"""Of etcd's refusals, by version."""


class AuthRevoked(Usual):
    """The victims' etcds answer nobody but their own meshds any more."""

    number: ClassVar[int] = 18
    name: ClassVar[str] = "auth-revoked"
    summary: ClassVar[str] = "peers lose the right to read a cluster's etcd"
    behaviour: ClassVar[str] = (
        "they say so, keep what they knew last, try again slowly, and go on once they may"
    )
    needs: ClassVar[frozenset[Power]] = frozenset({Power.ETCD, Power.KILL, Power.RESTART})
    programs: ClassVar[tuple[str, ...]] = ("etcdctl",)
    hold_s: ClassVar[float] = 5.0
    settings: ClassVar[Mapping[str, object]] = {**SOON, "replication.recycle_after_s": 2}
    """etcd asks who is there when a watch is opened, and not again while it is open."""
    judges: ClassVar[tuple[str, ...]] = ("I16", "I17")

    async def inject(self, stage: Stage) -> Says:
        """Give the own meshds a user, have the etcd ask, and try what a peer's user may do."""
        password = stage.mesh.folder / "own-password"
        password.write_text(f"{SECRET}\n")
        attempts: list[Attempt] = []
        for cluster in stage.clusters:
            etcd = etcd_of(cluster)
            stage.memory[f"revoked {cluster.name}"] = True
            # With a user in its settings it also works on an etcd that doesn't ask yet.
            given = (f"etcd.username={OWN}", f"etcd.password_file={password}")
            for meshd in cluster.meshds:
                await meshd.stop()
                await meshd.start_with(given)
            peers = _peers(stage, cluster)
            await secure(cluster, etcd, peers, password)
            for peer in peers:
                attempts += await tried(cluster.name, etcd, peer)
        return Says(attempts=tuple(attempts))

    async def bit(self, stage: Stage) -> str:
        """Somebody says of each victim that it may not read there."""
        told = []
        for victim in stage.clusters:
            readers = running(stage.others, Kind.MESHD)
            told.append(await first_of(_refused(reader, victim.name) for reader in readers))
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Have the etcd ask nobody, and run the own meshds as they are configured."""
        for cluster in stage.clusters:
            name = f"revoked {cluster.name}"
            if name in stage.memory:
                await open_again(etcd_of(cluster), _peers(stage, cluster))
                await _as_configured(cluster)
                del stage.memory[name]


def _peers(stage: Stage, cluster: Cluster) -> list[str]:
    """Whom it gives a user; their meshds don't know of it."""
    return [name for name in stage.mesh.clusters if name != cluster.name]


async def _as_configured(cluster: Cluster) -> None:
    for meshd in cluster.meshds:
        await meshd.stop()
        await meshd.start()


async def _refused(reader: Server, peer: str) -> str:
    item = await until(
        reader,
        f"/v1/peers/{peer}",
        lambda it: it["phase"] != "Ready" and any(word in it["reason"] for word in WORDS),
    )
    return f"{reader.name} calls {peer} {item['phase']}: {item['reason']}"


FAULTS: Final[tuple[type[Fault], ...]] = (AuthRevoked,)
