"""Identities: sets of labels, and the number that stands for each in packets and policies.

For: the value of `identity.set`, and what a number is made of. Not for: which number a set of
labels gets (`core.decide`) nor what policies say of it. Invariant: a number carries the id of the
cluster that gave it, so two clusters never give the same one.

Layout: cluster id * 65536 + local number; local numbers below 256 are left to data planes, which
reserve them for 'host', 'world' and the like (as Cilium does, whose layout this is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from meshd.model.errors import Problem, RejectedError
from meshd.model.forms import Audiences, Labels, SourceName
from meshd.model.ids import CLUSTER_ID_MAX
from meshd.model.keyspace import DEFAULT_AUDIENCE

LOCAL_BITS = 16
LOCAL_MIN = 256
LOCAL_MAX = (1 << LOCAL_BITS) - 1


def _some_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    if not labels:
        raise ValueError("holds no label; an identity is a set of labels")
    return labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A set of labels that policies can speak of. audiences: who may know of it. source: the
    manifest that owns it.
    """

    labels: Annotated[Labels, AfterValidator(_some_labels)]
    audiences: Audiences = (DEFAULT_AUDIENCE,)
    source: SourceName = ""


def identity_number(cluster_id: int, local: int) -> int:
    """The number of an identity, of its cluster's id and its number within the cluster."""
    return cluster_id << LOCAL_BITS | local


def cluster_id_of(number: int) -> int:
    """The id of the cluster that gave a number."""
    return number >> LOCAL_BITS


def parse_identity(text: str) -> int:
    """Read an identity's number; raises RejectedError if it can't be one."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < len(str(1 << 32)) else 0
    is_one = 1 <= cluster_id_of(number) <= CLUSTER_ID_MAX and number & LOCAL_MAX >= LOCAL_MIN
    if not is_one or str(number) != text:
        what = f"{text!r} is not the number of an identity"
        remedy = f"write cluster id * 65536 + a number of {LOCAL_MIN}..{LOCAL_MAX}"
        raise RejectedError((Problem("identity", what, remedy),))
    return number
