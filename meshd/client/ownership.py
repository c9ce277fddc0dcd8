"""In whose name a client applies manifests.

For: what `Client.apply` may be given. Not for: what it means (`core.ownership`, on the server).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """In whose name manifests are applied. prune: what that owner has beyond them is removed."""

    owner: str = ""
    prune: bool = False
    take_over: bool = False
    allow_empty: bool = False

    def query(self) -> dict[str, str]:
        """As parameters of a request."""
        flags = {
            "prune": self.prune,
            "take_over": self.take_over,
            "allow_empty": self.allow_empty,
        }
        named = {"owner": self.owner} if self.owner else {}
        return named | {name: "true" for name, is_given in flags.items() if is_given}


NOBODYS = Ownership()
