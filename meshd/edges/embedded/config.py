"""How to run the embedded etcd.

For: its settings and the command line that follows from them. Not for: looking at the machine.
Invariant: the same settings give the same command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SNAPSHOT_COUNT = 10_000
"""etcd 3.4 keeps 100,000 raft entries in memory by default, and ours are whole batches of events;
etcd 3.6 has come down to this number as well."""
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class EmbeddedTls:
    """PEM files for clients' connections; clients must show a certificate.

    The server's certificate is also shown by meshd's own check that etcd answers, so it must be
    good for clients too.
    """

    ca_file: Path
    cert_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class EmbeddedConfig:
    """One etcd with one member.

    data_dir: everything of this etcd; the only thing that must survive.
    client_address, peer_address: 'IP:port'; etcd insists on a raft address even when alone.
    binary: the etcd to run; None for the one on PATH.
    allow_unsafe: take 3.5.0 to 3.5.2 as well, which can lose acknowledged writes in a crash.
    quota_bytes: what etcd may fill before it refuses writes.
    history_kept: how long etcd keeps superseded revisions, '' for ever. It compacts by itself
        because nothing of meshd needs history for long: a reader that finds it gone reads the
        log's keys, which compaction doesn't touch. Without it the heartbeats alone fill the disk.
    start_timeout_s: until it must answer. grace_s: between SIGTERM and SIGKILL.
    """

    data_dir: Path
    client_address: str = "127.0.0.1:2379"
    peer_address: str = "127.0.0.1:2380"
    binary: Path | None = None
    tls: EmbeddedTls | None = None
    allow_unsafe: bool = False
    quota_bytes: int = 2 * GIB
    history_kept: str = "1h"
    start_timeout_s: float = 60.0
    grace_s: float = 10.0

    @property
    def etcd_dir(self) -> Path:
        """What etcd itself calls its data directory."""
        return self.data_dir / "etcd"

    @property
    def log_file(self) -> Path:
        """What etcd says."""
        return self.data_dir / "etcd.log"

    @property
    def pid_file(self) -> Path:
        """Who it is, while it runs."""
        return self.data_dir / "etcd.pid"

    @property
    def lock_file(self) -> Path:
        """Held by the meshd whose etcd this is."""
        return self.data_dir / "meshd.lock"


def arguments(config: EmbeddedConfig) -> list[str]:
    """Return etcd's command line, without the program."""
    client = f"{'https' if config.tls else 'http'}://{config.client_address}"
    peer = f"http://{config.peer_address}"
    flags = {
        "name": "meshd",
        "data-dir": str(config.etcd_dir),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"meshd={peer}",
        "quota-backend-bytes": str(config.quota_bytes),
        "snapshot-count": str(SNAPSHOT_COUNT),
        # The default of 3.4 is another logger, that of later ones this; the output is our file.
        "logger": "zap",
        "log-outputs": "stderr",
    }
    if config.history_kept:
        flags["auto-compaction-mode"] = "periodic"
        flags["auto-compaction-retention"] = config.history_kept
    if config.tls:
        flags["cert-file"] = str(config.tls.cert_file)
        flags["key-file"] = str(config.tls.key_file)
        flags["trusted-ca-file"] = str(config.tls.ca_file)
        flags["client-cert-auth"] = "true"
    return [f"--{name}={value}" for name, value in flags.items()]
