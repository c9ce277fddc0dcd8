"""What nobody doctored holds, and every invariant is judged in one story or another."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.history import Entry
from chaos.validators.judging import VALIDATORS, judge
from chaos.validators.sentences import SENTENCES
from chaos.validators.verdict import Status
from tests.chaos.stories import evidence, kill_one, poison_one, restore_one, wipe_one

Story = Callable[[], list[Entry]]


@pytest.mark.parametrize("story", [kill_one, wipe_one, restore_one, poison_one])
def test_a_clean_history_holds(story: Story) -> None:
    judgement = judge(evidence(story()))
    assert [str(one) for verdict in judgement.violated for one in verdict.violations] == []
    assert judgement.absent == ()
    assert judgement.holds


def test_every_invariant_is_judged_somewhere() -> None:
    judged = {
        verdict.invariant
        for story in (kill_one, wipe_one, restore_one, poison_one)
        for verdict in judge(evidence(story())).verdicts
        if verdict.status is Status.HOLDS
    }
    assert judged == VALIDATORS.keys() == SENTENCES.keys()
