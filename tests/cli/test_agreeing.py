"""When `meshd verify` ends with 0: agreement was seen, or what is behind is within the limits."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.cli.agreeing import Judgement, Limits, Match, lag_text, matches
from meshd.client import Agreement

LAG = {"cluster": "east", "events": 3, "seconds": 2.5}
OTHER_LOG = {"cluster": "east", "events": None, "seconds": None}
OF_UNKNOWN_AGE = {"cluster": "east", "events": 3, "seconds": None}
COMPARED = {"vector_text": "v0", "agrees": True, "age_s": 4.0}


def one(name: str, verdict: str = "agrees", *lags: Any, **fields: Any) -> Any:
    plain = {
        "name": name,
        "verdict": verdict,
        "reason": "why" if verdict in {"unknown", "differs"} else "",
        "behind": list(lags),
        "compared": None,
        "here_text": "v1",
        "digest_here": f"digest of {name}",
    }
    return plain | fields


def report(*clusters: Any, cluster: str = "east") -> Agreement:
    digest = "digest of " + cluster
    return {
        "cluster": cluster,
        "vector_text": "v1",
        "digest": digest,
        "agrees": True,
        "clusters": list(clusters),
    }


EAST, WEST = one("east"), one("west")
BOTH = Limits(lag_events=3, lag_s=2.5)


@pytest.mark.parametrize(
    ("west", "limits", "waited_s", "text"),
    [
        (WEST, Limits(), 0.0, ""),
        (one("west", "differs"), BOTH, 0.0, "west: why"),
        (one("west", "unknown"), BOTH, 0.0, "west: why"),
        (one("west", "behind", LAG), Limits(), 0.0, "west is behind: east by 3 events (2.5 s)"),
        (one("west", "ahead"), Limits(), 0.0, "west is ahead"),
        # It was compared while this was waited for; before, or with another outcome, doesn't count.
        (one("west", "behind", LAG, compared=COMPARED), Limits(), 4.0, ""),
        (one("west", "ahead", compared=COMPARED), Limits(), 4.0, ""),
        (one("west", "behind", LAG, compared=COMPARED), Limits(), 3.9, "west is behind"),
        (one("west", "unknown", compared=COMPARED), Limits(), 4.0, "west: why"),
        (
            one("west", "behind", LAG, compared=COMPARED | {"agrees": False}),
            BOTH,
            0.0,
            "west: it came to another digest a while ago",
        ),
        # Within limits, and beyond.
        (one("west", "behind", LAG), BOTH, 0.0, ""),
        (one("west", "ahead"), BOTH, 0.0, ""),
        (one("west", "behind", LAG), Limits(lag_events=2), 0.0, "west is behind"),
        (one("west", "behind", LAG), Limits(lag_s=2.4), 0.0, "west is behind"),
        (one("west", "behind", OF_UNKNOWN_AGE), Limits(lag_events=3), 0.0, ""),
        (one("west", "behind", OF_UNKNOWN_AGE), BOTH, 0.0, "west is behind: east by 3 events"),
        (one("west", "behind", OTHER_LOG), Limits(lag_events=9), 0.0, "east by another log"),
        (one("west", "behind", LAG, compared=COMPARED), Limits(lag_s=1), 9.0, "west is behind"),
    ],
)
def test_one_report(west: Any, limits: Limits, waited_s: float, text: str) -> None:
    judgement = Judgement(limits)
    judgement.take([report(EAST, west)], waited_s)
    said = [f"{name}: {why}" for name, why in judgement.differs.items()] + judgement.missing
    assert judgement.is_agreement is (not text)
    assert (text in " ".join(said)) if text else not said


def test_this_cluster_may_be_behind_itself() -> None:
    judgement = Judgement(Limits())
    judgement.take([report(one("east", "behind", LAG | {"cluster": "west"}), WEST)], 0.0)
    assert judgement.missing == ["east is behind: west by 3 events (2.5 s)"]


def test_agreement_once_is_enough_and_a_difference_too() -> None:
    judgement = Judgement(Limits())
    judgement.take([report(EAST, WEST, one("south", "behind", LAG))], 0.0)
    assert judgement.missing == ["south is behind: east by 3 events (2.5 s)"]
    judgement.take([report(EAST, one("west", "behind", LAG), one("south"))], 1.0)
    assert judgement.is_agreement
    judgement.take([report(EAST, one("west", "differs"), one("south"))], 2.0)
    judgement.take([report(EAST, WEST, one("south"))], 3.0)
    assert not judgement.is_agreement


def west_says(**fields: Any) -> Agreement:
    return report(WEST, one("east", **fields), cluster="west")


def test_what_several_derive_for_one_perspective_is_compared() -> None:
    east = report(EAST, WEST)
    said = (("east", "digest of east"), ("west", "digest of east"))
    assert matches([east, west_says()])[0] == Match("east", "v1", said)
    assert [match.perspective for match in matches([east, west_says()])] == ["east", "west"]
    # Only at the same vector, and only what was derived.
    assert [it.perspective for it in matches([east, west_says(here_text="v2")])] == ["west"]
    assert [it.perspective for it in matches([east, west_says(digest_here=None)])] == ["west"]
    assert matches([east]) == []


def test_those_that_are_asked_are_held_against_each_other_alone() -> None:
    judgement = Judgement(Limits())
    # What they last said of themselves is older than what they say now.
    reports = [report(EAST, one("west", "behind", LAG)), west_says(verdict="ahead")]
    assert all(match.agrees for match in judgement.take(reports, 0.0))
    assert judgement.is_agreement
    assert judgement.pairs == {("east", "west")}
    judgement.take([report(EAST, WEST), west_says(digest_here="another")], 0.0)
    assert list(judgement.differs) == ["east"]


@pytest.mark.parametrize(
    ("own", "limits", "is_well"),
    [
        (EAST, Limits(), False),
        (EAST, Limits(lag_events=0), True),
        (one("east", "behind", LAG), Limits(lag_events=3), True),
        (one("east", "behind", LAG), Limits(lag_events=2), False),
    ],
)
def test_those_that_were_never_at_the_same_vector(own: Any, limits: Limits, is_well: bool) -> None:
    judgement = Judgement(limits)
    mine = report(own, one("west", here_text="v3"))
    others = report(one("west", here_text="v2"), one("east", here_text="v4"), cluster="west")
    judgement.take([mine, others], 0.0)
    assert judgement.is_agreement is is_well
    text = "east and west were not at the same vector when they were asked"
    assert judgement.missing == ([] if is_well else [text])


def test_others_than_those_that_are_asked_must_agree_too() -> None:
    judgement = Judgement(Limits())
    judgement.take([report(EAST, WEST, one("south", "unknown")), west_says()], 0.0)
    assert judgement.missing == ["south: why"]


def test_lags_in_words() -> None:
    lags = [LAG, {"cluster": "south", "events": 1, "seconds": None}, OTHER_LOG]
    assert lag_text(one("west", "behind", *lags)) == (
        "east by 3 events (2.5 s), south by 1 event, east by another log"
    )
