"""What somebody can do in an etcd with the rights that it gave a peer.

For: etcds that ask who is there, where `meshd etcd secure` said who may do what. Not for: whether
it is right (I16, I17 judge that). Invariants: what is tried changes nothing that anybody reads; an
etcd that doesn't answer isn't taken for one that refuses.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chaos.etcds import Etcd, said_by
from chaos.faults.ground import EXPORT, LOCAL
from chaos.history import Attempt, Deed
from chaos.mesh.shape import Cluster

OWN: Final = "meshd"
ROOT: Final = "root"
SECRET: Final = "of-a-mesh-under-test"  # noqa: S105 nobody else's
AS_ROOT: Final = ("--user", f"{ROOT}:{SECRET}")
ROLES: Final = "meshd-"
"""What the names of the roles begin with that `meshd etcd secure` makes."""
DENIED: Final = "permission denied"
"""What etcd says of all that a user may not do."""
TRIES: Final = (
    (Deed.READ, "/meshd/v1/cluster", True),
    (Deed.READ, f"{EXPORT}head", True),
    (Deed.READ, f"{LOCAL}head", False),
    (Deed.READ, "/meshd/v1/export/another/head", False),
    (Deed.READ, "/meshd/v1/replica/", False),
    (Deed.READ, "/", False),
    (Deed.WRITE, f"{EXPORT}chaos", False),
    (Deed.WRITE, f"{LOCAL}chaos", False),
    (Deed.WRITE, "/chaos", False),
)
"""Deed, key, and whether a peer of the audience `mesh` may (design, section 7). Nobody reads the
keys that are written."""


async def secure(cluster: Cluster, etcd: Etcd, peers: Sequence[str], password: Path) -> None:
    """Let in the own meshds and these peers, all with one password, as somebody would who runs it;
    raises RuntimeError with what the command says.
    """
    given = [f"--peer={peer}" for peer in peers]
    given += [f"--peer-password-file={peer}={password}" for peer in peers]
    settings = {
        "cluster.name": cluster.name,
        "cluster.id": cluster.number,
        "etcd.endpoints": etcd.endpoints,
    }
    await said_by(
        *(sys.executable, "-m", "meshd", "etcd", "secure", *given),
        *(f"--set={key}={value}" for key, value in settings.items()),
        *(f"--root-password-file={password}", f"--own-password-file={password}"),
    )


async def tried(target: str, etcd: Etcd, peer: str) -> list[Attempt]:
    """Try all deeds with a peer's rights. They have no time yet: who notes them has."""
    return [
        Attempt(
            at_ns=0,
            cluster=peer,
            target=target,
            deed=deed,
            key=key,
            may=may,
            done=await _does(etcd, peer, deed, key),
        )
        for deed, key, may in TRIES
    ]


async def _does(etcd: Etcd, peer: str, deed: Deed, key: str) -> bool:
    """Whether it was let; raises RuntimeError if it failed for another reason."""
    user = ("--user", f"{peer}:{SECRET}")
    is_range = key.endswith("/")
    what = ("get", key, *(("--prefix",) if is_range else ())) if deed is Deed.READ else ("put", key)
    try:
        await etcd.ctl(*user, *what, given=b"-")
    except RuntimeError as error:
        if DENIED not in str(error):
            raise
        return False
    return True


async def open_again(etcd: Etcd, peers: Sequence[str]) -> None:
    """Have it ask nobody, and take out users and roles as far as they were made."""
    await etcd.ctl(*AS_ROOT, "auth", "disable")
    for user in (await etcd.ctl("user", "list")).decode().split():
        if user in {ROOT, OWN, *peers}:
            await etcd.ctl("user", "delete", user)
    for role in (await etcd.ctl("role", "list")).decode().split():
        if role == ROOT or role.startswith(ROLES):
            await etcd.ctl("role", "delete", role)
