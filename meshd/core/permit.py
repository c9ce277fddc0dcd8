"""What a reader may see of this cluster's etcd.

For: one question, whether a key or a range lies within the descriptor and one audience's export
log. Not for: who a reader is, nor asking etcd (`edges.etcd.gate`). Invariant: whatever is permitted
holds no key but the descriptor and keys that start with the audience's root, with any of etcd's
ways to write a range's end.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.model.keyspace import Keyspace, prefix_end


@dataclass(frozen=True, slots=True)
class Permit:
    """One reader's part of a keyspace."""

    keyspace: Keyspace
    audience: str

    def covers(self, key: bytes, end: bytes = b"") -> bool:
        """Tell whether all of [key, end), or with no end the one key, may be read.

        A range that holds nothing is not permitted: no follower asks for one, and a rule without
        exceptions is one that can be checked.
        """
        root = self.keyspace.export(self.audience).root
        if not end:
            return key == self.keyspace.descriptor or key.startswith(root)
        # etcd's end for 'all keys from here on' is NUL, which is before every root: not above key.
        return root <= key < end <= prefix_end(root)
