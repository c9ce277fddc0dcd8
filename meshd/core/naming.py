"""What a cluster and its identities may be called: names, ids and numbers that are given once.

For: the rules of `decide` for what is said of the cluster itself, and for identities' numbers. Not
for: making events (`decide`). Invariants: a cluster keeps its name for life, and its id while
numbers are made of it; one set of labels has one number.
"""

from __future__ import annotations

from dataclasses import replace

from meshd.core.draft import Draft
from meshd.model.cluster import ClusterInfo
from meshd.model.command import AllocateIdentity, DescribeCluster
from meshd.model.errors import Problem, RejectedError
from meshd.model.identity import (
    LOCAL_MAX,
    LOCAL_MIN,
    Identity,
    cluster_id_of,
    identity_number,
)
from meshd.model.schema import from_data, to_data

IDENTITIES_MAX = LOCAL_MAX - LOCAL_MIN + 1
"""All the numbers that a cluster has."""


def introduced(known: ClusterInfo | None, given: ClusterInfo) -> ClusterInfo:
    """What the settings say of a cluster, with what was said while it ran: a drain outlasts a
    restart.
    """
    if known is None:
        return given
    return replace(
        given,
        state=known.state,
        weight=known.weight,
        turned_percent=known.turned_percent,
        announces=known.announces,
    )


def described(known: ClusterInfo | None, given: DescribeCluster) -> ClusterInfo:
    """What a cluster's settings said of it, with what is said of it now."""
    if known is None:
        what = "the cluster has not said its name in its log yet"
        raise RejectedError((Problem("cluster", what, "try again once meshd has started"),))
    return replace(known, state=given.state, weight=given.weight, announces=given.announces)


def renamed(known: ClusterInfo, info: ClusterInfo, draft: Draft) -> None:
    """Raise RejectedError if a cluster may not become another: its log must not speak for one of
    another name (the fold's rule), nor its identities have numbers of another id.
    """
    if known.name != info.name:
        what = f"this is cluster {known.name}, not {info.name}"
        raise RejectedError((Problem("cluster", what, "give the new name a log of its own"),))
    if known.id != info.id and not draft.numbers().is_empty:
        what = f"the numbers of its identities are made of id {known.id}; it can't become {info.id}"
        remedy = f"set cluster.id back to {known.id}, or remove all identities first"
        raise RejectedError((Problem("cluster.id", what, remedy),))


def allocated(draft: Draft, wanted: AllocateIdentity) -> tuple[int, Identity]:
    """The number of a set of labels and what it stands for: the number that they have, else the
    lowest free one. Raises RejectedError.
    """
    numbers = draft.numbers()
    found = numbers.numbers_of(wanted.labels)
    known = draft.identity(found[0]) if found else None
    number = found[0] if found else _free_number(draft)
    data = to_data(known) if known is not None else {"labels": wanted.labels}
    for field in ("audiences", "source"):
        value = getattr(wanted, field)
        if value is not None:
            data[field] = value
    return number, from_data(Identity, data, "identity")


def _free_number(draft: Draft) -> int:
    info, local = draft.cluster(), draft.numbers().lowest_free()
    if info is None:
        what = "the cluster has not said its id in its log yet"
        raise RejectedError((Problem("identity", what, "try again once meshd has started"),))
    if local is None:
        what = f"all {IDENTITIES_MAX} numbers of this cluster are taken"
        remedy = "remove identities that nothing uses any more: meshd get identities"
        raise RejectedError((Problem("identity", what, remedy),))
    return identity_number(info.id, local)


def owned_number(draft: Draft, number: int, identity: Identity) -> int:
    """A number that this cluster may give to these labels; raises RejectedError."""
    info = draft.cluster()
    if info is None or cluster_id_of(number) != info.id:
        own = f"has id {info.id}" if info else "has not said its id yet"
        what = f"{number} is a number of cluster id {cluster_id_of(number)}; this cluster {own}"
        raise RejectedError((Problem("number", what, "leave it out: the next free one is taken"),))
    others = [other for other in draft.numbers().numbers_of(identity.labels) if other != number]
    if others:
        what = f"these labels have the number {others[0]} already"
        remedy = f"leave it out, or remove {others[0]} first"
        raise RejectedError((Problem("number", what, remedy),))
    return number
