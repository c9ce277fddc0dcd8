"""The catalogue as data: complete, unambiguous, and honest about what can't be done."""

from __future__ import annotations

import inspect
import random
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from chaos.faults.catalogue import MODULES, faults, faults_of, named, possible, row
from chaos.faults.fault import Blast, Fault, Stage
from chaos.faults.rows import ROWS, Row
from chaos.mesh.shape import Power
from chaos.validators.judging import VALIDATORS

ROOT = Path(__file__).resolve().parents[3]
ALL = frozenset(Power)


def test_rows_are_numbered_from_1_to_34_without_gaps() -> None:
    assert [one.number for one in ROWS] == list(range(1, 35))
    assert len({one.title for one in ROWS}) == len(ROWS)
    assert all(row(one.number) is one for one in ROWS)
    with pytest.raises(KeyError, match="there is no row 35"):
        row(35)


def test_every_row_leans_on_invariants_that_are_judged() -> None:
    for one in ROWS:
        assert one.invariants
        assert set(one.invariants) <= set(VALIDATORS), one.number


@pytest.mark.parametrize("covering", sorted({test for one in ROWS for test in one.covered_by}))
def test_what_covers_a_row_is_there(covering: str) -> None:
    path, _, name = covering.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()


@pytest.mark.parametrize("fault", faults().values(), ids=lambda fault: fault.name)
def test_a_fault_has_all_that_a_fault_has(fault: type[Fault]) -> None:
    assert row(fault.number) in ROWS
    assert fault.name == fault.name.lower().replace(" ", "-").replace("_", "-")
    assert fault.summary
    assert fault.behaviour
    assert fault.needs <= ALL
    assert isinstance(fault.programs, tuple)
    assert fault.blast in Blast
    assert fault.hold_s >= 0
    assert dict(fault.settings) == {str(key): value for key, value in fault.settings.items()}
    for deed in ("inject", "bit", "heal"):
        assert inspect.iscoroutinefunction(getattr(fault(), deed))


@pytest.mark.parametrize("one", ROWS, ids=lambda one: f"row{one.number}")
def test_a_row_has_faults_or_says_what_it_waits_for(one: Row) -> None:
    assert bool(faults_of(one)) != bool(one.waits_for)


def test_names_are_unique_and_rows_have_their_faults() -> None:
    assert all(fault.name == name for name, fault in faults().items())
    listed = [one for part in MODULES for one in import_module(f"chaos.faults.{part}").FAULTS]
    assert sorted(one.name for one in listed) == sorted(faults())
    by_row = [fault for one in ROWS for fault in faults_of(one)]
    assert by_row == list(faults().values())
    assert len({id(fault) for fault in by_row}) == len(by_row)
    with pytest.raises(KeyError, match="there is no fault 'unheard-of'; there are"):
        named("unheard-of")


def test_what_can_not_be_done_says_what_it_lacks() -> None:
    fault = named("poison-bytes")
    assert possible(fault, ALL, {"etcdctl"}) == ""
    assert possible(fault, ALL, ()) == "skipped: needs `etcdctl` on PATH"
    lacking = possible(fault, {Power.ETCD}, {"etcdctl"})
    assert lacking == "skipped: needs power `freeze`"
    assert possible(row(19), (), {"etcdctl"}).startswith("skipped: needs power")
    assert "data plane" in possible(row(30), ALL)


def test_others_are_the_sound_ones_if_there_are_any() -> None:
    mesh = SimpleNamespace(clusters={name: name for name in ("east", "west", "south")})

    def others(*elsewhere: str) -> list[str]:
        stage = Stage(
            mesh=mesh,
            victims=["east"],
            chance=random.Random(1),
            elsewhere=frozenset(elsewhere),
        )
        return list(map(str, stage.others))

    assert others() == ["west", "south"]
    assert others("east", "south") == ["west"]
    assert others("east", "west", "south") == ["west", "south"]
