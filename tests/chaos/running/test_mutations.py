"""Mutations fit the code as it is, and change a copy."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.mutations import MUTATIONS, Mutation, MutationError, fits, mutated_copy
from chaos.validators.sentences import SENTENCES

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_a_mutation_fits_and_is_a_program(mutation: Mutation) -> None:
    fits(mutation, ROOT)
    text = (ROOT / mutation.file).read_text()
    changed = text.replace(mutation.old, mutation.new)
    assert changed != text
    ast.parse(changed)
    assert mutation.caught_by
    assert set(mutation.caught_by) <= SENTENCES.keys()


def test_it_is_a_copy_that_is_changed(tmp_path: Path) -> None:
    mutation = MUTATIONS[0]
    before = (ROOT / mutation.file).read_text()
    mutated_copy(mutation, ROOT, tmp_path)
    assert (ROOT / mutation.file).read_text() == before
    after = (tmp_path / mutation.file).read_text()
    assert mutation.new in after
    assert mutation.old not in after
    where = [sys.executable, "-c", "import meshd; print(meshd.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(tmp_path))


def test_names_are_unique() -> None:
    assert len({one.name for one in MUTATIONS}) == len(MUTATIONS)


def test_one_that_does_not_fit_is_told() -> None:
    with pytest.raises(MutationError, match=r"its text is 0 times in meshd/core/draft\.py"):
        fits(replace(MUTATIONS[0], file="meshd/core/draft.py"), ROOT)
    with pytest.raises(MutationError, match=r"gone\.py: No such file"):
        fits(replace(MUTATIONS[0], file="meshd/gone.py"), ROOT)
