"""Row 17: a peer's certificate has run out, is somebody else's, is exchanged, or is gone.

For: TLS between a meshd and a peer's etcd. Not for: passwords and rights (`revocation`).
Invariants: the peer is one that the fault runs beside the mesh; the victims list it as long as the
fault lasts.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from chaos.faults.beside import LAST_IDS, Outsider, free_beside, fresh_folder, outsider
from chaos.faults.boot import Listed, as_configured, restart_with_peers
from chaos.faults.certificates import RUN_OUT, Authority
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import SOON, kept, running, until
from chaos.faults.signs import OUT_OF_SIGHT, peer_is
from chaos.mesh.shape import Kind, Power, Server

GUEST: Final = "guest"
WORDS: Final = ("certificate", "ssl", "handshake", "tls")
"""Of the reasons that are given when a certificate isn't trusted, by version of gRPC."""


@dataclass(slots=True)
class _Guest:
    """The peer. secure: where its etcd speaks TLS. reconnects: of each reader, before."""

    stack: AsyncExitStack
    authority: Authority
    secure: str
    made: Outsider
    reconnects: dict[str, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its certificates are."""
        return self.authority.folder

    @property
    def host(self) -> str:
        """For which its certificates are."""
        return self.secure.rpartition(":")[0]

    async def start_anew(self) -> None:
        """Start its etcd again, so that every connection is opened anew."""
        await self.made.etcd.stop()
        await self.made.etcd.start()


class _Trust(Usual):
    """The victims read a peer over TLS, until something is wrong with that."""

    number: ClassVar[int] = 17
    behaviour: ClassVar[str] = "only that link suffers, and nothing is read from who isn't trusted"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.BESIDE, Power.KILL, Power.RESTART})
    programs: ClassVar[tuple[str, ...]] = ("etcd", "etcdctl", "openssl")
    hold_s: ClassVar[float] = 5.0
    settings: ClassVar[Mapping[str, object]] = SOON
    words: ClassVar[Sequence[str]] = WORDS

    async def spoil(self, guest: _Guest) -> None:
        """Do it; the guest's etcd is started anew afterwards."""
        raise NotImplementedError

    async def inject(self, stage: Stage) -> Says:
        """Run the peer, have the victims read it, then spoil it."""
        guest = await _received(stage)
        stage.memory["guest"] = guest
        for cluster in stage.clusters:
            stage.memory[f"hosts {cluster.name}"] = True
            for meshd in cluster.meshds:
                await restart_with_peers(meshd, lambda peers: [*peers, _listed(guest)])
        for reader in running(stage.clusters, Kind.MESHD):
            item = await until(reader, f"/v1/peers/{GUEST}", lambda it: it["phase"] == "Ready")
            guest.reconnects[reader.name] = item["reconnects"]
        await self.spoil(guest)
        await guest.start_anew()
        return Says(detail=f"{GUEST} is a peer of the victims beside the mesh, over TLS")

    async def bit(self, stage: Stage) -> str:
        """All victims have lost sight of it, and say why."""
        meshds = running(stage.clusters, Kind.MESHD)
        told = [await peer_is(one, GUEST, OUT_OF_SIGHT, self.words) for one in meshds]
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """List it no more, and end it."""
        await as_configured(stage, "hosts")
        guest = kept(stage, "guest", _Guest)
        if guest is not None:
            await guest.stack.aclose()
            del stage.memory["guest"]


async def _received(stage: Stage) -> _Guest:
    """The peer, which runs; if that fails, nothing of it does."""
    folder = await fresh_folder(stage.mesh.folder, GUEST)
    seen_by = stage.clusters[0].meshds[0]
    secure = free_beside(seen_by)
    host = secure.rpartition(":")[0]
    authority = Authority(folder, "authority")
    await authority.found()
    server, reader = (authority.folder / f"{name}.pem" for name in ("server", "reader"))
    await authority.issue(server, host)
    await authority.issue(reader, host)
    flags = (
        *("--cert-file", str(server), "--key-file", str(server), "--client-cert-auth"),
        *("--trusted-ca-file", str(authority.certificate)),
    )
    async with AsyncExitStack() as stack:
        url = f"https://{secure}"
        running_one = outsider(folder, seen_by, GUEST, LAST_IDS[-1], also=url, flags=flags)
        made = await stack.enter_async_context(running_one)
        return _Guest(stack.pop_all(), authority, secure, made)


def _listed(guest: _Guest) -> Listed:
    reader = str(guest.folder / "reader.pem")
    tls = {"ca_file": str(guest.authority.certificate), "cert_file": reader, "key_file": reader}
    return {"name": GUEST, "endpoints": [guest.secure], "tls": tls}


class CertificateExpired(_Trust):
    """Its certificate has run out."""

    name: ClassVar[str] = "certificate-expired"
    summary: ClassVar[str] = "a peer's certificate has run out"

    async def spoil(self, guest: _Guest) -> None:
        """Show one that has."""
        await guest.authority.issue(guest.folder / "server.pem", guest.host, RUN_OUT)


class CertificateForeign(_Trust):
    """Its certificate is signed by somebody else."""

    name: ClassVar[str] = "certificate-foreign"
    summary: ClassVar[str] = "a peer's certificate is signed by an authority that nobody trusts"

    async def spoil(self, guest: _Guest) -> None:
        """Show one of another authority."""
        stranger = Authority(guest.folder, "stranger")
        await stranger.found()
        await stranger.issue(guest.folder / "server.pem", guest.host)


class PlaintextOffered(_Trust):
    """It speaks without TLS at the same address."""

    name: ClassVar[str] = "plaintext-offered"
    summary: ClassVar[str] = "a peer's etcd speaks plaintext where it spoke TLS"
    words: ClassVar[Sequence[str]] = ("",)

    async def spoil(self, guest: _Guest) -> None:
        """Listen for plaintext there."""
        secure = f"https://{guest.secure}"
        guest.made.etcd.flags = [
            flag.replace(secure, f"http://{guest.secure}") for flag in guest.made.etcd.flags
        ]


class CertificateRotated(_Trust):
    """Its certificate and its reader's are exchanged for others of the same authority."""

    name: ClassVar[str] = "certificate-rotated"
    summary: ClassVar[str] = "a peer's certificate and its reader's are exchanged for new ones"
    behaviour: ClassVar[str] = "the link goes on without a restart of the reader"

    async def spoil(self, guest: _Guest) -> None:
        """Issue new ones, in the same files."""
        for name in ("server", "reader"):
            await guest.authority.issue(guest.folder / f"{name}.pem", guest.host)

    async def bit(self, stage: Stage) -> str:
        """The new one is shown, and every victim has connected anew."""
        guest = kept(stage, "guest", _Guest)
        if guest is None:
            raise RuntimeError("there is no guest: inject comes first")
        shown = await asyncio.to_thread(_shown, guest.secure)
        ours = await asyncio.to_thread((guest.folder / "server.crt").read_text)
        if shown.strip() not in ours:
            raise RuntimeError(f"{guest.secure} still shows the certificate from before")
        told = [await _connected_anew(one, guest) for one in running(stage.clusters, Kind.MESHD)]
        return f"{guest.secure} shows a new certificate; {'; '.join(told)}"


def _shown(address: str) -> str:
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


async def _connected_anew(meshd: Server, guest: _Guest) -> str:
    before = guest.reconnects[meshd.name]

    def is_anew(item: Any) -> bool:
        return bool(item["reconnects"] > before and item["phase"] == "Ready")

    item = await until(meshd, f"/v1/peers/{GUEST}", is_anew)
    return f"{meshd.name} is Ready on it again after {item['reconnects'] - before} reconnects"


FAULTS: Final[tuple[type[Fault], ...]] = (
    *(CertificateExpired, CertificateForeign, PlaintextOffered, CertificateRotated),
)
