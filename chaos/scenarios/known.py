"""All scenarios by name.

For: `run` and `list`. Not for: running them. Invariant: a name that isn't there is answered with
those that are near it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from chaos.scenarios.drawn import random_windows, swizzle
from chaos.scenarios.each import of_faults
from chaos.scenarios.isolation import isolation
from chaos.scenarios.scenario import Faults, Scenario, ScenarioError, Wish
from chaos.scenarios.smoke import smoke

Make = Callable[[Wish, Faults], Scenario]
FAULT = "fault/"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A scenario before it is known for which mesh."""

    name: str
    summary: str
    make: Make


def recipes(faults: Faults) -> Mapping[str, Recipe]:
    """By name; with one for each of these faults."""
    found = [
        Recipe("smoke", "half a minute: a meshd is killed, then a link is cut", smoke),
        Recipe(
            "isolation",
            "one, two, then all clusters but one in trouble: the others don't notice (I12)",
            isolation,
        ),
        Recipe("swizzle", "one after another breaks, and heals in another order", swizzle),
        Recipe("random", "drawn from the seed: faults, victims, how long", random_windows),
    ]
    for name, fault in faults.items():
        make = partial(of_faults, FAULT + name, fault.summary, (name,))
        found.append(Recipe(FAULT + name, fault.summary, make))
    return {one.name: one for one in found}


def recipe(name: str, faults: Faults) -> Recipe:
    """The scenario of this name; raises ScenarioError if there is none."""
    known = recipes(faults)
    if name in known:
        return known[name]
    near = get_close_matches(name, [*known, *faults], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `list --scenarios`"
    raise ScenarioError(f"there is no scenario {name!r}: {hint}")
