"""Scenarios that a seed draws: `random` and `swizzle`.

For: what nobody thought of. Not for: any fault by itself. Invariant: the same seed, wish and set of
faults draw the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from chaos.mesh.shape import Power
from chaos.scenarios.scenario import (
    Faults,
    Healing,
    Hit,
    Scenario,
    ScenarioError,
    Window,
    Wish,
    agreed,
)

USUAL = 3
RANDOM_S = 300.0
FIRST_QUIET_S = 15.0
"""To have something that the disturbed times are compared with."""
QUIET_SHARE = 0.25
"""As etcd's and Jepsen's do it: what a fault left behind shows in the time after it."""
HOLD_MORE_S = 10.0
"""A window holds so much longer at most than its faults need."""
HOLD_MAX_S = 30.0
"""Faults that need longer have a scenario of their own."""
REST_S = 10.0
APART_S = 2.0
HITS_MAX = 3
SWIZZLED = ("link-cut", "freeze-meshd", "kill-meshd", "etcd-down")
SWIZZLES = 3


def random_windows(wish: Wish, faults: Faults) -> Scenario:
    """Windows of random subsets of faults, of random clusters, a quarter of them quiet."""
    names = wish.names(USUAL)
    chance = random.Random(f"random {wish.seed}")  # noqa: S311 it is to be drawn again
    usable = _agreeing(sorted(_drawable(wish, faults)), faults, chance)
    if not usable:
        raise ScenarioError("random: no fault can be injected here: see `list --faults`")
    length_s = wish.duration_s or RANDOM_S
    windows = [Window(hold_s=min(FIRST_QUIET_S, length_s / 4))]
    while sum(one.length_s for one in windows) < length_s:
        windows.append(_drawn(names, usable, faults, chance))
    drawn = _scenario("random", "random faults of random clusters", wish, names, windows)
    return replace(drawn, is_open=True, duration_s=length_s)


def _drawn(
    names: Sequence[str], usable: Sequence[str], faults: Faults, chance: random.Random
) -> Window:
    if chance.random() < QUIET_SHARE:
        return Window(hold_s=REST_S)
    # One is always spared: it sees what becomes of the others, and it is who mustn't notice.
    left = chance.sample(list(names), len(names))[1:]
    hits = []
    for fault in _sampled(usable, min(chance.randint(1, HITS_MAX), len(left)), faults, chance):
        number = chance.randint(1, len(left))
        victims, left = left[:number], left[number:]
        hits.append(Hit(fault=fault, victims=tuple(victims)))
        if not left:
            break
    hold_s = max(faults[hit.fault].hold_s for hit in hits) + chance.uniform(0, HOLD_MORE_S)
    return Window(
        hits=tuple(hits),
        hold_s=round(hold_s, 1),
        apart_s=chance.choice((0.0, APART_S)),
        healing=chance.choice(list(Healing)),
        rest_s=REST_S,
    )


def _drawable(wish: Wish, faults: Faults) -> list[str]:
    """Those that a mesh as wished for can have, and that fit into a window."""
    absent = set()
    if not wish.is_ha:
        absent.add(Power.HA)
    if wish.etcd_members == 1:
        absent.add(Power.MEMBERS)
    if not wish.has_brokers:
        absent.add(Power.BROKER)
    return [
        name
        for name, fault in faults.items()
        if not fault.needs & absent and fault.hold_s <= HOLD_MAX_S
    ]


def _agreeing(names: Sequence[str], faults: Faults, chance: random.Random) -> list[str]:
    """As many as can be run on one mesh: of two that want other settings, one."""
    kept: list[str] = []
    for name in chance.sample(list(names), len(names)):
        with suppress(ScenarioError):
            agreed([*kept, name], faults)
            kept.append(name)
    return sorted(kept)


def _sampled(
    usable: Sequence[str], number: int, faults: Faults, chance: random.Random
) -> list[str]:
    """So many of them, each of another row: some rows have ten faults, which is no reason to have
    them ten times as often.
    """
    rows = sorted({faults[name].number for name in usable})
    return [
        chance.choice([name for name in usable if faults[name].number == row])
        for row in chance.sample(rows, min(number, len(rows)))
    ]


def swizzle(wish: Wish, faults: Faults) -> Scenario:
    """One cluster after another breaks, and they are healed in another order."""
    names = wish.names(USUAL)
    usable = [name for name in SWIZZLED if name in faults]
    if not usable:
        raise ScenarioError(f"swizzle: none of {', '.join(SWIZZLED)} can be injected here")
    chance = random.Random(f"swizzle {wish.seed}")  # noqa: S311 it is to be drawn again
    windows = [Window(hold_s=FIRST_QUIET_S)]
    for number in range(SWIZZLES):
        order = chance.sample(names, len(names))
        of_one_kind = usable[number % len(usable)]
        hits = [
            Hit(fault=of_one_kind if number == 0 else chance.choice(usable), victims=(name,))
            for name in order
        ]
        windows.append(
            Window(
                hits=tuple(hits),
                hold_s=6.0,
                apart_s=APART_S,
                healing=Healing.SWIZZLE,
                rest_s=REST_S,
            )
        )
    summary = "one cluster after another breaks, and they are healed in another order"
    return _scenario("swizzle", summary, wish, names, windows)


def _scenario(
    name: str, summary: str, wish: Wish, names: tuple[str, ...], windows: Sequence[Window]
) -> Scenario:
    return Scenario(
        name=name,
        summary=summary,
        seed=wish.seed,
        names=names,
        windows=tuple(windows),
        is_ha=wish.is_ha,
        etcd_members=wish.etcd_members,
        has_brokers=wish.has_brokers,
        duration_s=wish.duration_s,
    )
