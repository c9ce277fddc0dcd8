"""An etcd in memory: for tests, the simulator, and nothing that must survive a restart."""

from meshd.edges.memory.etcd import MemoryEtcd
from meshd.edges.memory.kv import MemoryKv

__all__ = ["MemoryEtcd", "MemoryKv"]
