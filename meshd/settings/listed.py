"""A peer that the local log lists, as one of the settings would have it.

For: holding it to the very rules of the settings, on this host, beside all the others. Not for: its
limits as a value (`model.listed`). Invariant: what comes out would be taken from a file as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from meshd.model.errors import Problem, RejectedError
from meshd.model.ids import ClusterName
from meshd.model.listed import ListedPeer
from meshd.model.schema import problem_of, to_data
from meshd.settings.rules import check
from meshd.settings.subjects import PeerSettings, Settings

_ADAPTER = TypeAdapter(PeerSettings)
_INDEX = re.compile(r"peers\[(\d+)\]")


def peer_settings(
    name: ClusterName,
    value: ListedPeer,
    settings: Settings,
    others: Sequence[PeerSettings],
    files_dir: Path | None,
) -> PeerSettings:
    """The settings of a listed peer, beside the other peers. files_dir: where its files must be;
    None if it may name none. Raises RejectedError with everything that is wrong with it.
    """
    try:
        peer = _ADAPTER.validate_python({"name": name, **to_data(value)}, extra="forbid")
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise RejectedError(tuple(problem_of(detail, "") for detail in details)) from None
    # Of hundreds of others only those matter that it could be taken for.
    near = [other for other in others if _is_near(peer, other)]
    subjects = {
        "cluster": settings.cluster,
        "etcd": settings.etcd,
        "staleness": settings.staleness,
        "peers": (*near, peer),
    }
    start = f"peers[{len(near)}]."
    names = [other.name for other in near]
    # Of a file in the wrong place not even its being there is told.
    problems = list(_misplaced(peer, files_dir))
    misplaced = {problem.where for problem in problems}
    problems += [
        Problem(
            problem.where.removeprefix(start),
            _named(problem.what.replace(start, ""), names),
            _named(problem.remedy.replace(start, ""), names),
        )
        for problem in check(subjects)
        if problem.where.startswith(start) and problem.where.removeprefix(start) not in misplaced
    ]
    if problems:
        raise RejectedError(tuple(problems))
    return peer


def _is_near(peer: PeerSettings, other: PeerSettings) -> bool:
    return peer.name == other.name or not set(peer.endpoints).isdisjoint(other.endpoints)


def _misplaced(peer: PeerSettings, folder: Path | None) -> Iterator[Problem]:
    """Files outside of the folder that they must be in, wherever links lead."""
    for where, file in (
        ("tls.ca_file", peer.tls.ca_file),
        ("tls.cert_file", peer.tls.cert_file),
        ("tls.key_file", peer.tls.key_file),
        ("password_file", peer.password_file),
    ):
        if file is None:
            continue
        if folder is None:
            yield Problem(
                where,
                "is a file, and a peer in the log may name none on this host",
                "set replication.listed_files_dir to the folder of such files",
            )
        elif not _is_below(file, folder):
            yield Problem(where, f"{file} is not below {folder}", "put it there")


def _is_below(file: Path, folder: Path) -> bool:
    try:
        return file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        # Links that lead in a circle, or into a place that can't be looked at.
        return False


def _named(text: str, names: Sequence[str]) -> str:
    """Call the other peers by their names: their numbers mean nothing to who lists one peer."""
    return _INDEX.sub(lambda found: f"peer {names[int(found[1])]}", text)
