"""Cutting a large apply: bounded, in order, and the same for the same commands."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.state import ClusterState
from meshd.edges.http.portions import PORTION_BYTES_MAX, PORTION_EVENTS_MAX, portions
from meshd.model.command import Command, RemoveService, ReplaceEndpoints, SetEndpoint, Submission
from meshd.model.endpoint import Endpoint
from meshd.model.ids import EndpointKey, ServiceKey
from tests.mesh import endpoint, service

WEB = ServiceKey("shop", "web")


def _replace(count: int, label_chars: int = 0, name: str = "web") -> ReplaceEndpoints:
    one = Endpoint(address="10.0.0.1", labels={"x": "y" * label_chars} if label_chars else {})
    return ReplaceEndpoints(ServiceKey("shop", name), "file", {f"e{n}": one for n in range(count)})


def test_what_fits_is_one_portion_under_the_callers_own_key() -> None:
    commands = (service(), endpoint("shop/web/a"), RemoveService(WEB), _replace(3))
    assert portions(commands, "ann", "k") == [(commands, "k")]
    assert portions((), "ann", "") == [((), "")]


def test_portions_are_numbered_under_the_callers_key_or_have_none() -> None:
    commands = [service(f"shop/s{n}") for n in range(PORTION_EVENTS_MAX + 1)]
    cut = portions(commands, "ann", "k")
    assert [cause for _, cause in cut] == ["k§1", "k§2"]
    assert [command for portion, _ in cut for command in portion] == commands
    assert [cause for _, cause in portions(commands, "ann", "")] == ["", ""]


def test_a_large_replacement_adds_before_it_takes_away() -> None:
    command = _replace(PORTION_EVENTS_MAX + 5)
    cut = portions([command], "ann", "")
    flat = [one for portion, _ in cut for one in portion]
    assert flat[-1] == command
    assert all(isinstance(one, SetEndpoint) for one in flat[:-1])
    assert flat[0] == SetEndpoint(
        EndpointKey(WEB, "e0"), Endpoint(address="10.0.0.1", source="file")
    )
    assert len(flat) == PORTION_EVENTS_MAX + 6


def test_bytes_bound_a_portion_as_well() -> None:
    commands = [service(f"shop/s{n}", labels={"x": "y" * 250}) for n in range(800)]
    cut = portions(commands, "ann", "")
    assert len(cut) > 1
    assert max(len(portion) for portion, _ in cut) < PORTION_EVENTS_MAX


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.from_regex(r"[a-c]/[a-f]", fullmatch=True),
            st.tuples(st.sampled_from([0, 1, 400, 1100]), st.sampled_from([0, 200])),
        ),
        max_size=4,
    ),
    st.sampled_from(["", "k" * 240]),
)
def test_every_portion_can_be_decided_on_an_empty_state(
    shapes: list[str | tuple[int, int]], cause: str
) -> None:
    commands: list[Command] = [
        service(shape) if isinstance(shape, str) else _replace(*shape, name=f"s{n}")
        for n, shape in enumerate(shapes)
    ]
    draft = Draft(OfState(ClusterState()))
    for portion, portion_cause in portions(commands, "a" * 200, cause):
        decision = decide(draft, Submission(portion, "a" * 200, portion_cause), 1)
        assert len(decision.events) <= PORTION_EVENTS_MAX
        assert decision.events_bytes + decision.exports_bytes <= PORTION_BYTES_MAX
