"""Whatever a history holds, judging it ends with a judgement."""

from __future__ import annotations

import base64
import random
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest

from chaos import raw
from chaos.history import Entry, RawKey, RawLog, RunStarted
from chaos.report.page import page
from chaos.validators.judging import judge
from tests.chaos.stories import evidence, kill_one, numbered, poison_one, restore_one, wipe_one

STORIES = tuple(cache(story) for story in (kill_one, wipe_one, restore_one, poison_one))
SEEDS = range(30)


def deformed(value: Any, chance: random.Random) -> Any:
    """Something of the same form."""
    match value:
        case bool():
            return not value
        case int():
            return chance.choice([0, value - 1, value + 1, value * 2])
        case str():
            return value
        case tuple():
            return value[: chance.randrange(len(value) + 1)]
        case dict():
            return {}
        case _:
            return value


def falsified(entries: list[Entry], chance: random.Random) -> list[Entry]:
    """Some entries are gone, some are there twice, some say something else."""
    new: list[Entry] = []
    for entry in entries:
        if isinstance(entry, RunStarted) or chance.random() > 0.05:
            new.append(entry)
            continue
        names = [one.name for one in fields(entry) if one.name not in {"line", "at_ns"}]
        name = chance.choice(names) if names else "line"
        changed = replace(entry, **{name: deformed(getattr(entry, name), chance)})
        new += chance.choice([[], [entry, entry], [changed], [changed]])
    return numbered(new)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_falsified_history_is_judged(seed: int) -> None:
    chance = random.Random(seed)
    found = evidence(falsified(STORIES[seed % 4](), chance))
    judgement = judge(found)
    assert judgement.violated or judgement.absent
    assert page(judgement, found, "")


def broken_key(key: RawKey, chance: random.Random) -> RawKey:
    value = bytearray(base64.b64decode(key.value))
    for _ in range(chance.randrange(1, 4)):
        if value:
            value[chance.randrange(len(value))] = chance.randrange(256)
    value = value[: chance.choice([len(value), chance.randrange(len(value) + 1)])]
    return key._replace(value=base64.b64encode(value).decode())


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_lies_in_an_etcd_is_read_as_far_as_it_holds(seed: int) -> None:
    chance = random.Random(seed)
    entries = STORIES[seed % 4]()
    changed: list[Entry] = []
    for entry in entries:
        if isinstance(entry, RawLog):
            keys = [
                broken_key(key, chance) if chance.random() < 0.05 else key for key in entry.keys
            ]
            keys = [key for key in keys if chance.random() > 0.01]
            entry = replace(entry, keys=tuple(keys))  # noqa: PLW2901 that is the change
        changed.append(entry)
    assert judge(evidence(changed)).violated


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("head", b"[]", "I3: head is no head"),
        ("head", b'{"log_id":"a","seq":"1","hash":""}', "I3: head is no head"),
        ("head", b"\xff", "I3: head is no head"),
        ("log/x", b"", "I3: log/x is no record's"),
        ("log/00000000000000000001", b"\x90", "I3: log/00000000000000000001 is no record"),
        ("snapshot/manifest", b'{"log_id":"a"}', "I6: snapshot is none"),
        ("snapshot/manifest", b'{"log_id":"a","trim":{"seq":0,"hash":"zz"}}', "I6: snapshot is"),
    ],
)
def test_what_is_broken_is_named(key: str, value: bytes, says: str) -> None:
    keys = {"head": (b'{"log_id":"a","seq":0,"hash":"00"}', 1), key: (value, 1)}
    with pytest.raises(raw.BrokenError) as error:
        raw.read_log(keys, "")
    assert str(error.value).startswith(says)
