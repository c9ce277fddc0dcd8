"""A service's endpoints that count how often all of them are looked through.

For: tests of what must not cost more where a service has more endpoints. Not for: taking time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from meshd.core.state import Held
from meshd.model.endpoint import Endpoint

if TYPE_CHECKING:
    from _collections_abc import dict_items


class Watched(dict[str, Held[Endpoint]]):
    """They stand in for the ones of a state. passes: how often someone began to go through them."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        self.passes += 1
        return super().__iter__()

    def items(self) -> dict_items[str, Held[Endpoint]]:
        self.passes += 1
        return super().items()
