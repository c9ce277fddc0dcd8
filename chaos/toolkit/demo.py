"""The demo (`make demo`), found and broken from outside.

For: experiments that work at once, without a file. Not for: meshes that somebody else runs
(`chaos.mesh.attached`). Invariants: only processes that carry the demo's mark are touched; who was
ended is started again by the demo itself, so that its end ends them as well.

The demo's clusters share one machine and its loopback, so no packet tells from whom to whom it
goes. A link is cut by leading its reader elsewhere: to an address that takes connections and never
says a word.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MARK = b"DEMO_OF_MESHD="
START_ONE = (
    "start it by `make demo ARGS=--no-story`, or give the experiment a mesh file (MESHD_CHAOS_MESH)"
)
CHOOSE_BY = "MESHD_CHAOS_MESHDS"
WITHIN_S = 30.0
"""Until a process is gone or there again; the demo itself waits no longer for a start."""
ASK_EVERY_S = 0.05
SILENT_BACKLOG = 128
"""Connections that wait there without anybody taking them; a reader tries a few a minute."""


class DemoError(Exception):
    """There is no such demo, or it doesn't do what it should."""


@dataclass(frozen=True, slots=True)
class Running:
    """A meshd of a demo. demo: the process that started it. settings_file: of this meshd."""

    pid: int
    demo: int
    settings_file: Path


class Demo:
    """The demo whose meshds have these addresses: of each cluster `host:port` of its REST API."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses
        self._seen: dict[str, Running] = {}
        # Kept here so that they stay as long as this process does.
        self._silent: dict[tuple[str, str], socket.socket] = {}

    @classmethod
    def only_one(cls) -> dict[str, str]:
        """The addresses of the demo that runs on this machine; raises DemoError if that isn't one.
        All of its clusters, also those whose meshd doesn't run now.
        """
        folders = {
            settings_file.parent.parent
            for process in _marked()
            if (settings_file := _settings_file(process)) is not None
        }
        if not folders:
            raise DemoError(f"no demo runs on this machine: {START_ONE}")
        demos = [
            {
                str(tree["cluster"]["name"]): str(tree["api"]["listen"])
                for settings_file in sorted(folder.glob("*/meshd.yaml"))
                if (tree := _read(settings_file))
            }
            for folder in sorted(folders)
        ]
        if len(demos) > 1:
            lists = " or ".join(
                ",".join(f"{name}=http://{address}" for name, address in demo.items())
                for demo in demos
            )
            raise DemoError(f"several demos run on this machine; say which: {CHOOSE_BY}={lists}")
        return demos[0]

    # --- its processes ---------------------------------------------------------------------------

    def meshd(self, cluster: str) -> Running | None:
        """A cluster's meshd while it runs, frozen or not."""
        address = self._addresses.get(cluster)
        for process in _marked():
            settings_file = _settings_file(process)
            if settings_file is None:
                continue
            tree = _read(settings_file)
            named, listens = tree.get("cluster", {}).get("name"), tree.get("api", {}).get("listen")
            if (named, listens) == (cluster, address):
                found = Running(int(process.name), _parent(process), settings_file)
                self._seen[cluster] = found
                return found
        return None

    def etcd(self, cluster: str) -> int | None:
        """The etcd that a cluster's meshd runs."""
        meshd = self.meshd(cluster)
        for process in _marked():
            words = _words(process)
            is_etcd = bool(words) and Path(os.fsdecode(words[0])).name == "etcd"
            if meshd is not None and is_etcd and _parent(process) == meshd.pid:
                return int(process.name)
        return None

    def _need(self, cluster: str) -> Running:
        found = self.meshd(cluster)
        if found is None:
            address = self._addresses.get(cluster, "an address that the configuration doesn't have")
            raise DemoError(
                f"no demo on this machine runs {cluster}'s meshd at {address}: {START_ONE}"
            )
        return found

    def kill(self, cluster: str) -> None:
        """SIGKILL to its meshd, whose etcd ends with it."""
        meshd = self._need(cluster)
        _send(meshd.pid, signal.SIGKILL)
        _until(f"{cluster}'s meshd is gone", lambda: self.meshd(cluster) is None)

    def start(self, cluster: str) -> None:
        """Have the demo start what was ended."""
        if self.meshd(cluster) is not None:
            return
        demo = self._demo_of(cluster)
        words = _words(Path("/proc") / str(demo))
        if b"demo" not in words:
            raise DemoError(f"process {demo} is no demo any more: start it anew")
        _send(demo, signal.SIGUSR1)
        _until(f"{cluster}'s meshd runs again", lambda: self.meshd(cluster) is not None)

    def _demo_of(self, cluster: str) -> int:
        """The demo that has had this cluster's meshd, whether we saw it or not."""
        if cluster in self._seen:
            return self._seen[cluster].demo
        for other in self._addresses:
            sibling = self.meshd(other)
            if sibling is not None:
                return sibling.demo
        return self._need(cluster).demo

    def freeze(self, cluster: str) -> None:
        """SIGSTOP to its meshd."""
        _send(self._need(cluster).pid, signal.SIGSTOP)

    def thaw(self, cluster: str) -> None:
        """SIGCONT to its meshd."""
        meshd = self.meshd(cluster)
        if meshd is not None:
            _send(meshd.pid, signal.SIGCONT)

    def freeze_etcd(self, cluster: str) -> None:
        """SIGSTOP to its etcd."""
        self._need(cluster)
        pid = self.etcd(cluster)
        if pid is None:
            raise DemoError(f"{cluster}'s meshd runs no etcd now; wait until it is ready")
        _send(pid, signal.SIGSTOP)

    def thaw_etcd(self, cluster: str) -> None:
        """SIGCONT to its etcd."""
        pid = self.etcd(cluster)
        if pid is not None:
            _send(pid, signal.SIGCONT)

    # --- its links -------------------------------------------------------------------------------

    def cut(self, cluster: str, peer: str) -> None:
        """Nothing of either reaches the other from now on."""
        for reader, read in ((cluster, peer), (peer, cluster)):
            meshd = self._need(reader)
            whole = _whole(meshd.settings_file)
            if not whole.exists():
                whole.write_text(meshd.settings_file.read_text())
            self._lead(meshd, read, [self._silence(reader, read)])

    def heal(self, cluster: str, peer: str) -> None:
        """All is as it was between them."""
        for reader, read in ((cluster, peer), (peer, cluster)):
            meshd = self.meshd(reader)
            if meshd is None or not _whole(meshd.settings_file).exists():
                continue
            original = _read(_whole(meshd.settings_file))
            self._lead(meshd, read, _peer(original, read)["endpoints"])
            if _read(meshd.settings_file) == original:
                _whole(meshd.settings_file).replace(meshd.settings_file)
        for pair in ((cluster, peer), (peer, cluster)):
            silent = self._silent.pop(pair, None)
            if silent is not None:
                silent.close()

    def _silence(self, reader: str, read: str) -> str:
        """An address that takes connections and never says a word."""
        silent = self._silent.get((reader, read))
        if silent is None:
            silent = self._silent[reader, read] = socket.socket()
            silent.bind(("127.0.0.1", 0))
            silent.listen(SILENT_BACKLOG)
        host, port = silent.getsockname()
        return f"{host}:{port}"

    def _lead(self, meshd: Running, read: str, endpoints: list[str]) -> None:
        tree = _read(meshd.settings_file)
        _peer(tree, read)["endpoints"] = endpoints
        fresh = meshd.settings_file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(tree, sort_keys=False))
        fresh.replace(meshd.settings_file)
        _send(meshd.pid, signal.SIGHUP)


def _whole(settings_file: Path) -> Path:
    """Where the settings of before any cut are kept."""
    return settings_file.with_suffix(".whole")


def _read(settings_file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(settings_file.read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _peer(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    for peer in tree.get("peers", []):
        if peer["name"] == name:
            found: dict[str, Any] = peer
            return found
    raise DemoError(f"{tree.get('cluster', {}).get('name')} has no peer {name}; look for a typo")


def _marked() -> Iterator[Path]:
    """All processes of demos, as folders of /proc."""
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            environ = (process / "environ").read_bytes()
        except OSError:
            # It ended while we looked, or is somebody else's and so none of ours.
            continue
        if any(one.startswith(MARK) for one in environ.split(b"\0")):
            yield process


def _words(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _settings_file(process: Path) -> Path | None:
    """The settings file of a meshd; None of any other process."""
    words = _words(process)
    if b"meshd" not in words or b"run" not in words or b"--config" not in words[:-1]:
        return None
    return Path(os.fsdecode(words[words.index(b"--config") + 1]))


def _parent(process: Path) -> int:
    try:
        stat = (process / "stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise DemoError(f"process {pid} of the demo is another user's; be that user") from None


def _until(what: str, is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WITHIN_S
    while not is_so():
        if time.monotonic() > end_s:
            raise DemoError(f"waited {WITHIN_S:g} s in vain until {what}")
        time.sleep(ASK_EVERY_S)
