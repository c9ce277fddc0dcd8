"""An etcd of meshd's own: `async with EmbeddedEtcd(EmbeddedConfig(...)) as etcd`."""

from meshd.edges.embedded.config import EmbeddedConfig, EmbeddedTls
from meshd.edges.embedded.supervisor import EmbeddedEtcd

__all__ = ["EmbeddedConfig", "EmbeddedEtcd", "EmbeddedTls"]
