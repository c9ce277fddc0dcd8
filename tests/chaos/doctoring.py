"""Ways to falsify a history that was clean: each returns the whole of it anew.

For: the cases of `test_doctored`. Not for: writing histories from nothing (`model_run`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from chaos.evidence import Evidence
from chaos.history import Entry, RawKey, RawLog, Row, TableRead
from tests.chaos.model_logs import Event, Log
from tests.chaos.stories import numbered

Entries = list[Entry]
Doctor = Callable[[Entries], Entries]
Bodies = list[list[Event]]
_Kind = TypeVar("_Kind", bound=Entry)


def found(
    entries: Sequence[Entry], kind: type[_Kind], number: int = 0, **fields: object
) -> tuple[int, _Kind]:
    """The number-th entry of a kind with these fields, and where it is."""
    matching = [
        (index, entry)
        for index, entry in enumerate(entries)
        if isinstance(entry, kind)
        and all(getattr(entry, name) == value for name, value in fields.items())
    ]
    return matching[number]


def changed(
    kind: type[_Kind], number: int, fields: Mapping[str, object], /, **changes: Any
) -> Doctor:
    """One entry says something else. A change that is a function is given what was there."""

    def doctor(entries: Entries) -> Entries:
        index, entry = found(entries, kind, number, **fields)
        new = {
            name: value(getattr(entry, name)) if callable(value) else value
            for name, value in changes.items()
        }
        return [*entries[:index], replace(entry, **new), *entries[index + 1 :]]

    return doctor


def dropped(kind: type[_Kind], number: int, /, **fields: object) -> Doctor:
    """One entry was never written."""

    def doctor(entries: Entries) -> Entries:
        index, _ = found(entries, kind, number, **fields)
        return numbered([*entries[:index], *entries[index + 1 :]])

    return doctor


def swapped(kind: type[_Kind], one: int, other: int, /, *names: str, **fields: object) -> Doctor:
    """Two entries say what the other one did."""

    def doctor(entries: Entries) -> Entries:
        at, first = found(entries, kind, one, **fields)
        then, second = found(entries, kind, other, **fields)
        new = list(entries)
        new[at] = replace(first, **{name: getattr(second, name) for name in names})
        new[then] = replace(second, **{name: getattr(first, name) for name in names})
        return new

    return doctor


def every(kind: type[_Kind], chosen: Callable[[_Kind], bool], change: Doctor1[_Kind]) -> Doctor:
    """All entries of a kind that are chosen are changed, and the history is put in order again."""

    def doctor(entries: Entries) -> Entries:
        new = [
            change(entry) if isinstance(entry, kind) and chosen(entry) else entry
            for entry in entries
        ]
        return numbered(sorted(new, key=lambda entry: entry.at_ns))

    return doctor


Doctor1 = Callable[[_Kind], Entry]


def keys(cluster: str, log: str, edit: Callable[[list[RawKey]], list[RawKey]]) -> Doctor:
    """The last dump of a log has other keys."""
    return changed(
        RawLog, -1, {"cluster": cluster, "log": log}, keys=lambda known: tuple(edit(list(known)))
    )


def relogged(
    cluster: str,
    log: str,
    edit: Callable[[Bodies], Bodies],
    *,
    summed_up: int = 0,
    times: Callable[[int], int] = lambda revision: revision,
) -> Doctor:
    """The last dump of a log is of another one, whose records have these events and whose chain
    holds all the same.
    """

    def doctor(entries: Entries) -> Entries:
        dump = Evidence(entries).last_dump(cluster, log)
        assert dump is not None
        bodies, begun = [], 0
        revisions = list(dump.log.revisions.values())
        for last_seq in dump.log.records:
            bodies.append([event for seq, event in dump.log.events if begun < seq <= last_seq])
            begun = last_seq
        new = Log(dump.log_id)
        for number, body in enumerate(edit(bodies)):
            revision = revisions[number] if number < len(revisions) else revisions[-1] + number
            new.append(body, revision, times(revision))
            if number + 1 == summed_up:
                new.sum_up()
        end = "cursor" if log.startswith("replica/") else "head"
        fields = {"cluster": cluster, "log": log}
        return changed(RawLog, -1, fields, keys=new.keys(end))(entries)

    return doctor


def table(cluster: str, number: int, edit: Callable[[list[Row]], list[Row]]) -> Doctor:
    """A table has other backends of its service."""

    def services(known: dict[str, tuple[Row, ...]]) -> dict[str, tuple[Row, ...]]:
        return {"shop/web": tuple(edit(list(known["shop/web"])))}

    return changed(TableRead, number, {"cluster": cluster, "anew": False}, services=services)


def both(*doctors: Doctor) -> Doctor:
    """One after the other."""

    def doctor(entries: Entries) -> Entries:
        for one in doctors:
            entries = one(entries)
        return entries

    return doctor
