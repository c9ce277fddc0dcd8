"""How far operations have turned nodes up.

For: what an endpoint is to be that comes to a node. Not for: turning anything (`operating`).
Invariant: it follows from the operations alone, in the order of their last change: of those that
turned a node the last one counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshd.model.operation import Operation, Subject, SubjectKind


def nodes_in(operation: Operation) -> set[str]:
    """The nodes that an operation turns."""
    subjects = map(Subject.parse, operation.subjects)
    return {one.key for one in subjects if one.kind is SubjectKind.NODE}


def last_turns(operations: Mapping[str, Operation]) -> dict[str, tuple[str, int]]:
    """By node the last operation that turned it, and how far."""
    return {
        node: (name, operation.turned_now(str(Subject(SubjectKind.NODE, node))))
        for name, operation in operations.items()
        for node in nodes_in(operation)
    }


def node_turns(operations: Mapping[str, Operation]) -> dict[str, int]:
    """How far nodes are turned up, as far as any operation has turned them."""
    return {node: turned for node, (_, turned) in last_turns(operations).items()}
