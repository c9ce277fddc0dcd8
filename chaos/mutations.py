"""Defences of meshd that can be taken away, each with the run that must fail without it.

For: knowing that the suite finds what it is there for. Not for: running it (`running.mutating`).
Invariants: a mutation changes a copy of meshd, never meshd; its text is there exactly once, or it
says so; what it lets through is a bug that a person could have written.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES = ("meshd", "chaos")
"""What a run needs of this tree."""


class MutationError(Exception):
    """A mutation that doesn't fit the code any more: which, where, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """defence: what is taken away, in one sentence. file, old, new: where, and what is put there
    instead. run: arguments of `run`. caught_by: invariants of which one at least must be violated.
    """

    name: str
    defence: str
    file: str
    old: str
    new: str
    run: tuple[str, ...]
    caught_by: tuple[str, ...]


_WRITER: Final = "meshd/runtime/writer.py"

MUTATIONS: Final = (
    Mutation(
        name="no-fence",
        defence="an append compares the head, so that of two writers one begins anew",
        file=_WRITER,
        old="compares=(ValueIs(head_key, encode_local_head(plan.base)), *guards),",
        new="compares=tuple(guards),",
        run=("fault/etcd-quorum-frozen", "--ha", "--seed", "1"),
        caught_by=("I1", "I2", "I3", "I4"),
    ),
    Mutation(
        name="acknowledged-in-doubt",
        defence="a command is acknowledged only once it is known to be in the log",
        file=_WRITER,
        old="            return await self._write_again(plan, in_doubt=True)\n"
        "        except TransientError:\n"
        "            return await self._write_again(plan, in_doubt=False)\n",
        new="            return True\n        except TransientError:\n            return True\n",
        run=("fault/etcd-down", "--seed", "1"),
        caught_by=("I1",),
    ),
    Mutation(
        name="no-idempotency",
        defence="a command that is sent again with its key is done once",
        file="meshd/core/decide.py",
        old="    known = draft.outcome_of(submission.cause) if submission.cause else None\n",
        new="    known = None\n",
        run=("smoke", "--seed", "1"),
        caught_by=("I2",),
    ),
    Mutation(
        name="no-chain",
        defence="a record follows only the one whose hash it holds",
        file="meshd/core/position.py",
        old="        return Verdict.NEXT if record.prev_hash == at.hash else Verdict.FORK\n",
        new="        return Verdict.NEXT\n",
        run=("fault/poison-hash", "--seed", "1"),
        caught_by=("I10",),
    ),
    Mutation(
        name="no-owner",
        defence="a log speaks for no cluster but its own",
        file="meshd/core/fold.py",
        old="    if isinstance(value, ClusterInfo) and not event.key == cluster == value.name:\n",
        new="    if isinstance(value, ClusterInfo) and not value.name:\n",
        run=("fault/malicious-owner", "--seed", "1"),
        caught_by=("I8", "I10"),
    ),
    Mutation(
        name="peers-may-write",
        defence="a peer's user may read its audience's export log, and nothing else",
        file="meshd/edges/etcd/access.py",
        old="                _prefix(keyspace.export(peer.audience).root, Access.READ),\n",
        new="                _prefix(keyspace.export(peer.audience).root, Access.READWRITE),\n",
        run=("fault/auth-revoked", "--seed", "1"),
        caught_by=("I16",),
    ),
    Mutation(
        name="poison-spreads",
        defence="a bad record stops the reading of that log, and nothing else",
        file="meshd/core/replica.py",
        old="    if verdict is None or state.doubted_seq == seq:\n"
        "        return _trouble(state, Trouble(Phase.QUARANTINED, reason), effects)\n",
        new="    if verdict is None or state.doubted_seq == seq:\n"
        "        raise AssertionError(reason)\n",
        run=("fault/poison-bytes", "--seed", "1"),
        caught_by=("I12",),
    ),
    Mutation(
        name="cursor-first",
        defence="a replica's records and its cursor are written in one transaction",
        file="meshd/runtime/replica_copy.py",
        old="        result = await self._commit_txn(\n"
        "            Txn(\n"
        "                compares=(*compares, *fence),\n"
        "                success=(*operations, mark),\n",
        new="        result = await self._commit_txn(\n"
        "            Txn(\n"
        "                compares=(*compares, *fence),\n"
        "                success=(mark,),\n",
        run=("smoke", "--seed", "1"),
        caught_by=("I3", "I6"),
    ),
    Mutation(
        name="old-generation-stays",
        defence="a log that was replaced takes along what it had said",
        file="meshd/core/tables.py",
        old="            for key in (*self._keys_concerning(cluster), *new)\n",
        new="            for key in new\n",
        run=("fault/etcd-wiped", "--seed", "1"),
        caught_by=("I11", "I18"),
    ),
    Mutation(
        name="resume-from-now",
        defence="a subscriber that comes back is told what it missed",
        file="meshd/edges/http/event_query.py",
        old="            return Start(await _resume(text, node, clusters))\n",
        new="            return Start(_edge(node, clusters, is_end=True))\n",
        run=("smoke", "--seed", "1"),
        caught_by=("I13",),
    ),
)


def fits(mutation: Mutation, root: Path) -> None:
    """Raise MutationError unless its text is there exactly once."""
    try:
        found = (root / mutation.file).read_text().count(mutation.old)
    except OSError as error:
        raise MutationError(f"{mutation.name}: {mutation.file}: {error.strerror}") from None
    if found != 1:
        raise MutationError(
            f"{mutation.name}: its text is {found} times in {mutation.file}, and not once: write"
            " down what the defence looks like now"
        )


def mutated_copy(mutation: Mutation, root: Path, folder: Path) -> None:
    """Copy what a run needs into a folder, without the defence."""
    fits(mutation, root)
    leave_out = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(root / package, folder / package, ignore=leave_out)
    file = folder / mutation.file
    file.write_text(file.read_text().replace(mutation.old, mutation.new))
