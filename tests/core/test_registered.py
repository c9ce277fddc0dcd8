"""Registered endpoints and all others: neither takes the other's over, and nobody silently."""

from __future__ import annotations

import pytest

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.ownership import OWNER_LABEL, pruned
from meshd.core.state import ClusterState, Held
from meshd.model.command import (
    Command,
    DropRegistered,
    RegisterEndpoint,
    RemoveEndpoint,
    RemoveService,
    ReplaceEndpoints,
    SetEndpoint,
    SetService,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.ids import EndpointKey, Seq, ServiceKey
from meshd.model.registration import REGISTRATION_SOURCE
from meshd.model.service import Service
from tests.logs import submission

WEB = ServiceKey("shop", "web")
A = EndpointKey(WEB, "a")
UP, MOVED = Endpoint(address="10.0.0.1"), Endpoint(address="10.0.0.2")
REGISTERED = Endpoint(address="10.0.0.1", source=REGISTRATION_SOURCE)
REGISTERS, SETS = RegisterEndpoint(A, UP), SetEndpoint(A, UP)


def draft_of(*commands: Command) -> Draft:
    draft = Draft(OfState(ClusterState()))
    for command in commands:
        decide(draft, submission(command), 1)
    return draft


def made(draft: Draft, command: Command) -> list[str]:
    return [event.type for event in decide(draft, submission(command), 1).events]


@pytest.mark.parametrize(
    ("before", "command", "events"),
    [
        ((), REGISTERS, ["endpoint.set"]),
        ((REGISTERS,), REGISTERS, []),
        ((REGISTERS,), RegisterEndpoint(A, MOVED), ["endpoint.set"]),
        ((REGISTERS,), DropRegistered(A), ["endpoint.removed"]),
        ((), DropRegistered(A), []),
        ((SETS,), DropRegistered(A), []),
        # What changes nothing is refused to nobody: a PUT of what was read.
        ((REGISTERS,), SetEndpoint(A, REGISTERED), []),
        ((REGISTERS,), ReplaceEndpoints(WEB, "file", {}), []),
        ((SetService(WEB, Service()), REGISTERS), RemoveService(WEB), ["service.removed"]),
    ],
)
def test_registrations_make_these_events(
    before: tuple[Command, ...], command: Command, events: list[str]
) -> None:
    assert made(draft_of(*before), command) == events


@pytest.mark.parametrize(
    ("before", "command", "word"),
    [
        ((SETS,), REGISTERS, "not by a registration"),
        ((ReplaceEndpoints(WEB, "file", {"a": UP}),), REGISTERS, "is set by file"),
        ((REGISTERS,), SETS, "with a time to live"),
        ((REGISTERS,), RemoveEndpoint(A), "DELETE /v1/registrations/shop/web/a"),
        ((REGISTERS,), ReplaceEndpoints(WEB, "file", {"a": MOVED}), "with a time to live"),
        ((), SetEndpoint(A, REGISTERED), "is that of registrations"),
        ((REGISTERS,), ReplaceEndpoints(WEB, REGISTRATION_SOURCE, {}), "that of registrations"),
        ((), RegisterEndpoint(EndpointKey(WEB, "A"), UP), "not an endpoint name"),
    ],
)
def test_nobody_takes_over_what_is_anothers(
    before: tuple[Command, ...], command: Command, word: str
) -> None:
    draft = draft_of(*before)
    last, known = draft.last, draft.endpoint(A)
    with pytest.raises(RejectedError, match=word):
        decide(draft, submission(command), 1)
    assert (draft.last, draft.endpoint(A)) == (last, known)


def test_a_registered_endpoint_is_never_pruned() -> None:
    labels = {OWNER_LABEL: "team"}
    endpoints = {
        "a": Endpoint(address="10.0.0.1", labels=labels, source=REGISTRATION_SOURCE),
        "b": Endpoint(address="10.0.0.2", labels=labels),
    }
    state = ClusterState(
        endpoints={WEB: {name: Held(one, Seq(1), 1, "x") for name, one in endpoints.items()}}
    )
    assert [removal.name for removal in pruned(state, (), "team")] == ["web/b"]
