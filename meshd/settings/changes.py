"""What differs between two settings.

For: telling a person which changes of a file that was read again need a restart. Not for: following
those that don't, which are the peers (`runtime.listing`). Invariant: no value is shown, since some
are secrets.
"""

from __future__ import annotations

from meshd.settings.shape import SettingPath, leaves
from meshd.settings.subjects import Settings

PEERS: SettingPath = ("peers",)


def changed_but_peers(old: Settings, new: Settings) -> tuple[str, ...]:
    """The settings that differ, apart from the peers, in the order of their declaration."""
    return tuple(
        ".".join(path)
        for path in leaves()
        if path != PEERS and _value(old, path) != _value(new, path)
    )


def _value(settings: Settings, path: SettingPath) -> object:
    value: object = settings
    for step in path:
        value = getattr(value, step)
    return value
