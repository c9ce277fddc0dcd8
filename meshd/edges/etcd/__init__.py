"""The door onto a real etcd: `connect(EtcdTarget(...))` gives a `Kv`.

`gate` is the other side of the same protocol: what peers may ask us.
"""

from meshd.edges.etcd.kv import EtcdKv, connect
from meshd.edges.etcd.target import EtcdTarget, TlsFiles

__all__ = ["EtcdKv", "EtcdTarget", "TlsFiles", "connect"]
