"""Row 18: the right to read a cluster's log is taken from its peers.

For: etcds that begin to ask who is there. Not for: certificates (`trust`), nor rights that are
tried and must be refused. Invariants: the cluster's own meshds have a user of their own meanwhile
and go on; afterwards the etcd asks nobody again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from chaos.etcds import Etcd
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import SOON, etcd_of, first_of, running, until
from chaos.mesh.shape import Cluster, Kind, Power, Server

OWN: Final = "meshd"
ROOT: Final = "root"
SECRET: Final = "of-a-mesh-under-test"  # noqa: S105 nobody else's
KEYS: Final = "/meshd/v1/"
AS_ROOT: Final = ("--user", f"{ROOT}:{SECRET}")
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

    async def inject(self, stage: Stage) -> Says:
        """Give the own meshds a user, then have the etcd ask."""
        password = stage.mesh.folder / "own-password"
        password.write_text(f"{SECRET}\n")
        for cluster in stage.clusters:
            etcd = etcd_of(cluster)
            stage.memory[f"revoked {cluster.name}"] = True
            await _add_users(etcd)
            # With a user in its settings it also works on an etcd that doesn't ask yet.
            given = (f"etcd.username={OWN}", f"etcd.password_file={password}")
            for meshd in cluster.meshds:
                await meshd.stop()
                await meshd.start_with(given)
            await etcd.ctl("auth", "enable")
        return Says()

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
                await _remove_users(etcd_of(cluster))
                await _as_configured(cluster)
                del stage.memory[name]


async def _add_users(etcd: Etcd) -> None:
    for user, role in ((ROOT, ROOT), (OWN, "chaos-own")):
        await etcd.ctl("user", "add", f"{user}:{SECRET}")
        await etcd.ctl("role", "add", role)
        await etcd.ctl("user", "grant-role", user, role)
    await etcd.ctl("role", "grant-permission", "--prefix=true", "chaos-own", "readwrite", KEYS)


async def _remove_users(etcd: Etcd) -> None:
    """As far as they were added: what isn't there need not be removed."""
    await etcd.ctl(*AS_ROOT, "auth", "disable")
    users = (await etcd.ctl("user", "list")).decode().split()
    roles = (await etcd.ctl("role", "list")).decode().split()
    for user in {ROOT, OWN} & set(users):
        await etcd.ctl("user", "delete", user)
    for role in {ROOT, "chaos-own"} & set(roles):
        await etcd.ctl("role", "delete", role)


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
