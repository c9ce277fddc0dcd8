"""Slots for consistent hashing: shares are kept, and one change moves few slots."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.slots import SLOTS_DEFAULT, SLOTS_SIZES, slots_of
from meshd.model.errors import RejectedError
from meshd.model.table import GlobalService
from tests.core.model_mesh import GLOBAL, LOCAL, Case, Cluster, down, table_of, up

SIZE = 4093
MOVED_MAX = 0.05
"""How many of the slots of those that stay may move when one of up to forty goes, at a hundred
slots for each: seen at most 0.023."""


def served(**clusters: Cluster) -> GlobalService:
    service = table_of(Case(says="", mesh=clusters, sees={}))
    assert service is not None
    return service


def by_name(service: GlobalService, size: int = SIZE) -> list[str]:
    backends, slots = slots_of(service, size)
    return [backends[number].name for number in slots]


def without(service: GlobalService, name: str) -> GlobalService:
    """The same, and one backend gone from the only tier."""
    left = tuple(one for one in service.backends if one.name != name)
    weight = sum(one.weight for one in left)
    tiers = tuple(replace(tier, weight=weight) for tier in service.tiers)
    return replace(service, backends=left, tiers=tiers)


@pytest.mark.parametrize("size", SLOTS_SIZES)
def test_every_size_is_a_prime_so_that_every_step_reaches_every_slot(size: int) -> None:
    assert all(size % divisor for divisor in range(2, int(size**0.5) + 1))


def test_backends_alike_have_slots_alike() -> None:
    counts = Counter(by_name(served(east=Cluster(endpoints=up(10)))))
    assert len(counts) == 10
    assert max(counts.values()) - min(counts.values()) <= 1


def test_weights_and_tiers_are_kept() -> None:
    """East keeps half of the traffic, which its two endpoints share as one to three."""
    service = served(
        east=Cluster(LOCAL, up(1) + up(1, weight=300) + down(4), {"weight": 50}),
        west=Cluster(endpoints=up(2)),
    )
    shares = {tier.priority: tier.share_ppm for tier in service.tiers}
    counts = Counter(by_name(service))
    east_ppm, west_ppm = shares[0], shares[16]
    for name, ppm in (
        ("east-1", east_ppm / 4),
        ("east-2", east_ppm * 3 / 4),
        ("west-1", west_ppm / 2),
    ):
        assert abs(counts[name] / SIZE - ppm / 1_000_000) < 0.01
    assert sum(counts.values()) == SIZE
    assert not any(name.startswith("east-3") for name in counts)


@given(number=st.integers(2, 40), data=st.data())
@settings(max_examples=40, deadline=None)
def test_when_one_goes_the_slots_of_the_others_nearly_all_stay(
    number: int, data: st.DataObject
) -> None:
    service = served(east=Cluster(endpoints=up(number)))
    gone = f"east-{data.draw(st.integers(1, number))}"
    before, after = by_name(service), by_name(without(service, gone))
    moved = sum(old not in {gone, new} for old, new in zip(before, after, strict=True))
    assert gone not in after
    assert moved <= MOVED_MAX * SIZE


def test_the_slots_are_the_same_everywhere_and_for_ever() -> None:
    """A golden value: another one would move connections at an upgrade."""
    backends, slots = slots_of(served(east=Cluster(endpoints=up(3))), SLOTS_SIZES[0])
    assert [backend.name for backend in backends] == ["east-1", "east-2", "east-3"]
    first = (0, 2, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 2, 2, 1, 0, 2, 2, 1, 1)
    assert slots[:24] == first


def test_uneven_shares_are_kept_too() -> None:
    """A golden value, made by walking every round: who is light waits long for its turn."""
    service = served(east=Cluster(endpoints=up(1, weight=1000) + up(3) + up(1, weight=7)))
    names = by_name(service, SLOTS_SIZES[0])
    raw = blake2b(",".join(names).encode(), digest_size=8).hexdigest()
    assert (Counter(names)["east-5"], raw) == (1, "6504cdb7667c26b3")


def test_nothing_takes_traffic_nothing_has_slots() -> None:
    assert slots_of(served(east=Cluster(GLOBAL, down(2))), SLOTS_DEFAULT) == ((), ())


def test_a_backend_of_a_tier_that_takes_nothing_has_no_slot() -> None:
    service = served(east=Cluster(LOCAL, up(1)), west=Cluster(endpoints=up(1)))
    backends, slots = slots_of(service, SLOTS_DEFAULT)
    assert [backend.name for backend in backends] == ["east-1"]
    assert set(slots) == {0}


@pytest.mark.parametrize("size", [0, 1000, 1024, 10**9])
def test_another_size_is_refused_with_those_there_are(size: int) -> None:
    with pytest.raises(RejectedError, match="use 251, 509"):
        slots_of(served(east=Cluster()), size)
