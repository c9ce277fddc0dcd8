"""The other side of etcd's API: a read-only door for peers in front of the own etcd."""

from meshd.edges.etcd.gate.limits import ANSWER_BYTES_MAX
from meshd.edges.etcd.gate.server import Gate

__all__ = ["ANSWER_BYTES_MAX", "Gate"]
