"""Which mesh an experiment is about, and by which hands it is broken.

For: the configuration of an experiment. Not for: doing or asking anything. Invariants: without any
configuration it is the demo; with a mesh file, nothing is touched that the file doesn't allow.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from chaos.mesh.attached import commanding_of
from chaos.mesh.commanding import Commanding
from chaos.mesh.mesh_file import MeshdEntry, Target, Verb
from chaos.mesh.shape import Kind
from chaos.toolkit.demo import Demo
from meshd.client import ClientTls
from meshd.client import Target as Meshd

log = logging.getLogger("chaostoolkit")

ACTOR = "chaos-toolkit"
REQUEST_TIMEOUT_S = 5.0
"""A frozen meshd takes connections and never answers."""

Configuration = Mapping[str, Any] | None
"""As Chaos Toolkit hands it over."""


class ConfigurationError(Exception):
    """The experiment's configuration can't be used."""


class Hands(Protocol):
    """What can be done to a mesh. server: '' means all of this kind in the cluster."""

    def meshd(self, verb: Verb, cluster: str, server: str) -> None:
        """Do something to its meshds."""

    def etcd(self, verb: Verb, cluster: str, server: str) -> None:
        """Do something to its etcd."""

    def link(self, verb: Verb, cluster: str, peer: str) -> None:
        """Cut or heal."""

    def undo_all(self) -> None:
        """Undo what is left, as far as that is known."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A mesh: of each cluster its meshds, and how it is broken."""

    meshds: Mapping[str, tuple[Meshd, ...]]
    hands: Hands

    def of(self, cluster: str) -> tuple[Meshd, ...]:
        """The meshds of one cluster; raises ConfigurationError."""
        if cluster not in self.meshds:
            known = ", ".join(self.meshds)
            raise ConfigurationError(f"there is no cluster {cluster!r} in this mesh, only {known}")
        return self.meshds[cluster]

    def but(self, without: str) -> list[str]:
        """All clusters but one; without: '' for none."""
        return [name for name in self.meshds if name != without]


def whereabouts(configuration: Configuration) -> Whereabouts:
    """The mesh of an experiment. mesh_file: that file; else meshds, `east=URL,west=URL`, which are
    those of a demo, with an optional token; else the demo that runs here.
    """
    given = configuration or {}
    mesh_file = str(given.get("mesh_file") or "")
    if mesh_file:
        return _of_file(Path(mesh_file).resolve())
    return _of_demo(str(given.get("meshds") or ""), str(given.get("token") or ""))


@cache
def _of_file(path: Path) -> Whereabouts:
    commanding = commanding_of(path, log.info)
    # An experiment that is killed halfway through has rollbacks that nobody runs.
    atexit.register(commanding.close)
    meshds = {
        cluster.name: tuple(_meshd(entry) for entry in cluster.meshds)
        for cluster in commanding.file.clusters
    }
    return Whereabouts(meshds, _FileHands(commanding))


def _meshd(entry: MeshdEntry) -> Meshd:
    tls = ClientTls(ca_file=entry.ca_file)
    return _target(entry.url, entry.token(), tls)


def _target(url: str, token: str, tls: ClientTls) -> Meshd:
    # An experiment wants to know what becomes of one request, not of its repetitions.
    return Meshd(
        url=url,
        token=token,
        tls=tls,
        actor=ACTOR,
        connect_timeout_s=REQUEST_TIMEOUT_S,
        timeout_s=REQUEST_TIMEOUT_S,
        repeat_for_s=0.0,
    )


@cache
def _of_demo(listed: str, token: str) -> Whereabouts:
    # Looked for once: who is killed later is a part of it nevertheless.
    found = {} if listed else Demo.only_one()
    urls = {name: f"http://{address}" for name, address in found.items()}
    for one in filter(None, listed.split(",")):
        name, is_pair, url = one.strip().partition("=")
        if not is_pair or urlsplit(url).hostname is None:
            raise ConfigurationError(
                f"meshds: {one!r} is not of the form east=http://127.0.77.1:7979; write one for"
                " each cluster, with commas between them"
            )
        urls[name] = url
    meshds = {name: (_target(url, token, ClientTls()),) for name, url in urls.items()}
    return Whereabouts(
        meshds, _DemoHands({name: urlsplit(url).netloc for name, url in urls.items()})
    )


class _FileHands:
    """By the commands of a mesh file."""

    def __init__(self, commanding: Commanding) -> None:
        self._commanding = commanding

    def meshd(self, verb: Verb, cluster: str, server: str) -> None:
        self._each(verb, cluster, server, Kind.MESHD)

    def etcd(self, verb: Verb, cluster: str, server: str) -> None:
        self._each(verb, cluster, server, Kind.ETCD)

    def _each(self, verb: Verb, cluster: str, server: str, kind: Kind) -> None:
        found = self._commanding.file.cluster(cluster)
        names = [
            entry.name
            for its_kind, entry in (found.servers() if found is not None else ())
            if its_kind is kind and server in {"", entry.name}
        ]
        if not names:
            what = f"{cluster} has no {kind} {server}".strip()
            raise ConfigurationError(f"{what} in the mesh file; list it there")
        for name in names:
            self._commanding.do(verb, Target(cluster, server=name))

    def link(self, verb: Verb, cluster: str, peer: str) -> None:
        first, second = sorted((cluster, peer))
        self._commanding.do(verb, Target(first, peer=second))

    def undo_all(self) -> None:
        self._commanding.undo_all()


class _DemoHands:
    """By signals to the demo's processes."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._demo = Demo(addresses)

    def meshd(self, verb: Verb, cluster: str, server: str) -> None:
        del server  # It has one.
        match verb:
            case Verb.KILL | Verb.STOP:
                self._demo.kill(cluster)
            case Verb.START:
                self._demo.start(cluster)
            case Verb.FREEZE:
                self._demo.freeze(cluster)
            case Verb.THAW:
                self._demo.thaw(cluster)
            case _:
                raise ConfigurationError(f"{verb} is nothing that is done to a meshd")

    def etcd(self, verb: Verb, cluster: str, server: str) -> None:
        del server  # It has one.
        match verb:
            case Verb.FREEZE:
                self._demo.freeze_etcd(cluster)
            case Verb.THAW:
                self._demo.thaw_etcd(cluster)
            case _:
                raise ConfigurationError(
                    f"{verb}: the demo's etcds are started again at once by their meshds; freeze"
                    " them instead"
                )

    def link(self, verb: Verb, cluster: str, peer: str) -> None:
        if verb is Verb.CUT:
            self._demo.cut(cluster, peer)
        else:
            self._demo.heal(cluster, peer)

    def undo_all(self) -> None:
        """Each experiment's rollbacks say what is to be undone of a demo."""
