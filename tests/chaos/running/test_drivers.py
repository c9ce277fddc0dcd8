"""Which driver runs what: the first that can, if the choice is left."""

from __future__ import annotations

import pytest

from chaos.faults.catalogue import named
from chaos.mesh.shape import Plan, Power
from chaos.running.drivers import AUTO, LOOPBACK, able, chosen, in_turn, powers_of

ONE = Plan(names=())
HA = Plan(names=(), is_ha=True)


def test_left_to_choose_the_other_one_does_what_the_first_can_not() -> None:
    beside = named("id-taken")
    assert Power.BESIDE in beside.needs
    assert able(AUTO, ONE, [beside]) == LOOPBACK
    assert able(AUTO, ONE, [named("kill-meshd")]) == chosen(AUTO)
    assert in_turn(AUTO)[0] == chosen(AUTO)


def test_who_asks_for_one_gets_it() -> None:
    assert in_turn(LOOPBACK) == (LOOPBACK,)
    assert able("namespaces", ONE, [named("id-taken")]) == "namespaces"


@pytest.mark.parametrize("driver", in_turn(AUTO))
def test_what_none_can_is_left_to_the_first_which_says_why(driver: str) -> None:
    second = named("two-leaders")
    assert Power.HA in second.needs
    assert able(driver, ONE, [second]) == driver
    assert Power.HA in powers_of(driver, HA) - powers_of(driver, ONE)
