"""MQTT topics: where events, tables and the status of one cluster are published.

For: names to topics and back, as `protocols/mqtt.md` describes them. Not for: what is published
there. Invariants: pure; whatever a name holds, its topic is valid and gives the name back; two
names never have the same topic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from meshd.core.telling import RESET
from meshd.model.errors import RejectedError
from meshd.model.ids import ServiceKey

TOPIC_BYTES_MAX: Final = 65_535
"""MQTT's own limit: the length of a text has two bytes. Type and key of an event have at most 512
characters each, and a character becomes at most 12 bytes, so no topic here comes near it.
"""
NO_NAMESPACE: Final = "-"
"""The level of things that have no namespace: nodes, identities, peers, the cluster itself. No
namespace is called so.
"""
_PLAIN: Final = ":"
"""What stays as it is beside ASCII letters, digits and `-._~`."""


def escaped(text: str) -> str:
    """A text as a part of a level: all but a few characters as percent and two digits."""
    level = quote(text, safe=_PLAIN, errors="surrogatepass")
    return "%2D" if level == NO_NAMESPACE else level


def unescaped(level: str) -> str:
    """The text that was escaped."""
    return unquote(level, errors="surrogatepass")


@dataclass(frozen=True, slots=True)
class Topics:
    """One cluster's topics. root: `<prefix>/<mesh>/<cluster>`, none of which needs escaping."""

    root: str

    @property
    def status(self) -> str:
        """Where the cluster says that it is there; retained."""
        return f"{self.root}/status"

    @property
    def reset(self) -> str:
        """Where it says that events before and after this are not one sequence."""
        return f"{self.root}/events/{RESET}"

    @property
    def all_tables(self) -> str:
        """A filter for all tables."""
        return f"{self.root}/tables/#"

    def event(self, kind: str, key: str) -> str:
        """Where an event of a type is told about the thing with this key: each part of the key is
        a level, so that a filter can name a service with all its endpoints.
        """
        levels = [escaped(part) for part in key.split("/")]
        if len(levels) == 1:
            levels.insert(0, NO_NAMESPACE)
        return "/".join((self.root, "events", escaped(kind), *levels))

    def table(self, key: ServiceKey) -> str:
        """Where a global service is, as this cluster sees it; retained."""
        return f"{self.root}/tables/{key}"

    def parse_event(self, topic: str) -> tuple[str, str] | None:
        """The type and the key; None for the topic of anything but an event."""
        head, found, tail = topic.partition(f"{self.root}/events/")
        kind, slash, rest = tail.partition("/")
        if head or not found or not slash:
            return None
        levels = rest.split("/")
        if levels[0] == NO_NAMESPACE:
            del levels[0]
        return unescaped(kind), "/".join(map(unescaped, levels))

    def parse_table(self, topic: str) -> ServiceKey | None:
        """The service; None for the topic of anything but a table."""
        head, found, tail = topic.partition(f"{self.root}/tables/")
        if head or not found:
            return None
        try:
            return ServiceKey.parse(tail)
        except RejectedError:
            return None
