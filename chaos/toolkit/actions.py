"""What experiments do to a mesh: actions of Chaos Toolkit's python provider.

For: methods and rollbacks. Not for: asking (`probes`). Invariant: `start`, `thaw` and `heal` may be
called when there is nothing to mend.
"""

from __future__ import annotations

from chaos.mesh.mesh_file import Verb
from chaos.toolkit.whereabouts import Configuration, whereabouts

__all__ = [
    "cut_link",
    "freeze_etcd",
    "freeze_meshd",
    "heal_link",
    "kill_etcd",
    "kill_meshd",
    "start_etcd",
    "start_meshd",
    "thaw_etcd",
    "thaw_meshd",
    "undo_everything",
]


def kill_meshd(cluster: str, server: str = "", configuration: Configuration = None) -> str:
    """End a cluster's meshds as a power cut does; server: one of them."""
    whereabouts(configuration).hands.meshd(Verb.KILL, cluster, server)
    return f"killed {cluster}'s meshd {server}".strip()


def start_meshd(cluster: str, server: str = "", configuration: Configuration = None) -> str:
    """Start them again."""
    whereabouts(configuration).hands.meshd(Verb.START, cluster, server)
    return f"started {cluster}'s meshd {server}".strip()


def freeze_meshd(cluster: str, server: str = "", configuration: Configuration = None) -> str:
    """Let a cluster's meshds do nothing, with all their connections open."""
    whereabouts(configuration).hands.meshd(Verb.FREEZE, cluster, server)
    return f"froze {cluster}'s meshd {server}".strip()


def thaw_meshd(cluster: str, server: str = "", configuration: Configuration = None) -> str:
    """Let them go on."""
    whereabouts(configuration).hands.meshd(Verb.THAW, cluster, server)
    return f"thawed {cluster}'s meshd {server}".strip()


def kill_etcd(cluster: str, server: str = "", configuration: Configuration = None) -> str:
    """End all members of a cluster's etcd, or one."""
    whereabouts(configuration).hands.etcd(Verb.KILL, cluster, server)
    return f"killed {cluster}'s etcd {server}".strip()


def start_etcd(cluster: str, server: str = "", configuration: Configuration = None) -> str:
    """Start them again."""
    whereabouts(configuration).hands.etcd(Verb.START, cluster, server)
    return f"started {cluster}'s etcd {server}".strip()


def freeze_etcd(cluster: str, server: str = "", configuration: Configuration = None) -> str:
    """Let all members of a cluster's etcd do nothing, or one."""
    whereabouts(configuration).hands.etcd(Verb.FREEZE, cluster, server)
    return f"froze {cluster}'s etcd {server}".strip()


def thaw_etcd(cluster: str, server: str = "", configuration: Configuration = None) -> str:
    """Let them go on."""
    whereabouts(configuration).hands.etcd(Verb.THAW, cluster, server)
    return f"thawed {cluster}'s etcd {server}".strip()


def cut_link(cluster: str, peer: str, configuration: Configuration = None) -> str:
    """Nothing of two clusters reaches the other."""
    whereabouts(configuration).hands.link(Verb.CUT, cluster, peer)
    return f"cut what is between {cluster} and {peer}"


def heal_link(cluster: str, peer: str, configuration: Configuration = None) -> str:
    """Everything arrives again."""
    whereabouts(configuration).hands.link(Verb.HEAL, cluster, peer)
    return f"healed what is between {cluster} and {peer}"


def undo_everything(configuration: Configuration = None) -> str:
    """Undo whatever was done by a mesh file's commands and isn't undone yet."""
    whereabouts(configuration).hands.undo_all()
    return "nothing is left to undo"
