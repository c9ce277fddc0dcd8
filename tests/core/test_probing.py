"""Who is probed and who must not be, and what becomes of results when things change."""

from __future__ import annotations

import pytest

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.explain import explain
from meshd.core.export import export_events
from meshd.core.fold import fold_event
from meshd.core.probing import HeldReason, aims, ground_of, mark_of, outdated
from meshd.core.state import ClusterState, Held
from meshd.model.cluster import ClusterInfo
from meshd.model.command import (
    Command,
    RecordProbe,
    RegisterEndpoint,
    ReplaceEndpoints,
    SetCluster,
    SetEndpoint,
    SetService,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, EndpointKey, Seq, ServiceKey
from meshd.model.probe import Probe, ProbeResult, ProbeType
from meshd.model.schema import from_data
from meshd.model.service import Port, Service, Transport
from meshd.model.table import Reason
from tests.logs import LOG_ID, submission

WEST, EAST, SOUTH = ClusterName("west"), ClusterName("east"), ClusterName("south")
WEB = ServiceKey("shop", "web")
A = EndpointKey(WEB, "a")
HTTP, DNS, ADMIN = Port(80, "http"), Port(53, "dns", Transport.UDP), Port(8081, "admin")
PROBE = Probe(type=ProbeType.HTTP, path="/healthz")
PROBED = Service(ports=(HTTP,), is_global=True, probe=PROBE)
UP = Endpoint(address="10.0.0.1")
FAILING, PASSING, UNKNOWN = ProbeResult.FAILING, ProbeResult.PASSING, ProbeResult.UNKNOWN
MARK = mark_of(PROBE)
FAILS = RecordProbe(A, "10.0.0.1", FAILING, MARK)


def said(name: str, *announces: str) -> ClusterState:
    info = ClusterInfo(name=name, id=1, announces=announces)
    return ClusterState(info=Held(info, Seq(1), 1, "x"))


@pytest.mark.parametrize(
    ("address", "own", "others", "allows_local", "held"),
    [
        ("10.1.0.1", (), (), False, None),
        ("10.1.0.1", ("10.1.0.0/16",), (), False, None),
        ("10.2.0.1", ("10.1.0.0/16",), (), False, HeldReason.NOT_ANNOUNCED),
        ("10.2.0.1", (), ("10.2.0.0/16",), False, HeldReason.OF_ANOTHER),
        ("10.2.0.1", ("10.2.0.0/16",), ("10.2.0.0/16",), False, None),
        ("10.3.0.1", (), ("10.2.0.0/16",), False, None),
        ("127.0.0.1", (), (), False, HeldReason.NOT_REACHABLE),
        ("169.254.169.254", (), (), False, HeldReason.NOT_REACHABLE),
        ("::1", (), (), False, HeldReason.NOT_REACHABLE),
        ("fe80::1", (), (), False, HeldReason.NOT_REACHABLE),
        ("240.0.0.1", (), (), False, HeldReason.NOT_REACHABLE),
        ("127.0.0.1", ("127.0.0.0/8",), (), False, HeldReason.NOT_REACHABLE),
        ("127.0.0.1", ("10.1.0.0/16",), (), True, None),
        ("10.2.0.1", ("10.1.0.0/16",), (), True, HeldReason.NOT_ANNOUNCED),
    ],
)
def test_only_what_is_the_clusters_own_is_probed(
    address: str,
    own: tuple[str, ...],
    others: tuple[str, ...],
    allows_local: bool,
    held: HeldReason | None,
) -> None:
    states = {WEST: said("west", *own), EAST: said("east", *others), SOUTH: ClusterState()}
    ground = ground_of(WEST, states, allows_local=allows_local)
    ((name, aim),) = aims(PROBED, [("a", Endpoint(address=address))], ground)
    assert (name, aim.held, aim.port) == ("a", held, 0 if held else 80)
    assert bool(aim.why) == bool(held)


@pytest.mark.parametrize(
    ("port", "of_service", "of_endpoint", "asked"),
    [
        ("", (HTTP, ADMIN), (), 80),
        ("", (DNS, ADMIN), (), 8081),
        ("admin", (HTTP, ADMIN), (), 8081),
        ("http", (HTTP,), (Port(8080, "http"),), 8080),
        (9000, (HTTP,), (), 9000),
        ("", (DNS,), (), 0),
        ("admin", (HTTP,), (Port(8080, "http"),), 0),
    ],
)
def test_the_port_that_is_asked(
    port: int | str, of_service: tuple[Port, ...], of_endpoint: tuple[Port, ...], asked: int
) -> None:
    service = Service(ports=of_service, probe=Probe(port=port))
    ground = ground_of(WEST, {WEST: said("west")}, allows_local=False)
    endpoint = Endpoint(address="10.0.0.1", ports=of_endpoint)
    ((_, aim),) = aims(service, [("a", endpoint)], ground)
    assert aim.port == asked
    assert aim.held == (None if asked else HeldReason.NO_PORT)


def test_a_service_without_a_probe_has_none_that_are_asked() -> None:
    ground = ground_of(WEST, {}, allows_local=False)
    assert list(aims(Service(), [("a", UP)], ground)) == []


def draft_of(*commands: Command) -> Draft:
    draft = Draft(OfState(ClusterState()))
    for command in commands:
        decide(draft, submission(command), 1)
    return draft


def probed(draft: Draft) -> ProbeResult:
    endpoint = draft.endpoint(A)
    assert endpoint is not None
    return endpoint.probed


DEFINED = (SetService(WEB, PROBED), SetEndpoint(A, UP))


@pytest.mark.parametrize(
    ("then", "result", "events"),
    [
        (FAILS, FAILING, 0),
        (RecordProbe(A, "10.0.0.1", PASSING, MARK), PASSING, 1),
        (RecordProbe(A, "10.0.0.1", UNKNOWN), UNKNOWN, 1),
        # Of another place, or by another probe: it came too late.
        (RecordProbe(A, "10.0.0.9", PASSING, MARK), FAILING, 0),
        (RecordProbe(A, "10.0.0.1", PASSING, "00000000"), FAILING, 0),
        (RecordProbe(EndpointKey(WEB, "b"), "10.0.0.1", PASSING, MARK), FAILING, 0),
        # What its source says again keeps the result, whatever it says of it.
        (SetEndpoint(A, UP), FAILING, 0),
        (SetEndpoint(A, Endpoint(address="10.0.0.1", probed=PASSING)), FAILING, 0),
        (SetEndpoint(A, Endpoint(address="10.0.0.1", weight=7)), FAILING, 1),
        (ReplaceEndpoints(WEB, "file", {"a": UP}), FAILING, 1),
        # Another place is another endpoint.
        (SetEndpoint(A, Endpoint(address="10.0.0.2")), UNKNOWN, 1),
        (SetEndpoint(A, Endpoint(address="10.0.0.1", ports=(HTTP,))), UNKNOWN, 1),
    ],
)
def test_a_result_stays_with_its_place(then: Command, result: ProbeResult, events: int) -> None:
    draft = draft_of(*DEFINED, FAILS)
    assert probed(draft) is FAILING
    assert len(decide(draft, submission(then), 1).events) == events
    assert probed(draft) is result


def test_a_new_endpoint_has_no_result_whatever_its_source_says() -> None:
    new = Endpoint(address="10.0.0.1", probed=FAILING, probed_by=MARK)
    for command in (SetEndpoint(A, new), RegisterEndpoint(A, new)):
        assert probed(draft_of(command)) is UNKNOWN


def test_a_registered_endpoint_keeps_its_result() -> None:
    draft = draft_of(SetService(WEB, PROBED), RegisterEndpoint(A, UP), FAILS)
    assert probed(draft) is FAILING
    assert decide(draft, submission(RegisterEndpoint(A, UP)), 1).events == ()


@pytest.mark.parametrize("probe", [None, Probe(), Probe(type=ProbeType.HTTP, path="/ready")])
def test_results_of_a_probe_that_is_no_more_are_cleared(probe: Probe | None) -> None:
    state = ClusterState()
    draft = Draft(OfState(state))
    for command in (*DEFINED, FAILS, SetService(WEB, Service(ports=(HTTP,), probe=probe))):
        for event in decide(draft, submission(command), 1).events:
            fold_event(state, event, Seq(state.seq + 1), 1, WEST)
    (clears,) = outdated(WEB, state)
    assert clears == RecordProbe(A, "10.0.0.1", UNKNOWN)
    decide(draft, submission(clears), 1)
    assert probed(draft) is UNKNOWN
    late = RecordProbe(A, "10.0.0.1", FAILING, MARK)
    assert decide(draft, submission(late), 1).events == ()


def test_what_has_its_own_probes_result_is_not_outdated() -> None:
    held = Endpoint(address="10.0.0.1", probed=FAILING, probed_by=MARK)
    state = ClusterState(
        services={WEB: Held(PROBED, Seq(1), 1, "x")},
        endpoints={WEB: {"a": Held(held, Seq(2), 1, "x"), "b": Held(UP, Seq(3), 1, "x")}},
    )
    assert list(outdated(WEB, state)) == []
    assert list(outdated(ServiceKey("shop", "other"), state)) == []


@pytest.mark.parametrize(
    ("before", "service", "word"),
    [
        ((), Service(ports=(HTTP,), probe=Probe(port="admin")), "TCP port 'admin'"),
        ((), Service(ports=(DNS,), probe=Probe()), "neither the service nor any endpoint"),
        ((), Service(probe=Probe()), "neither the service nor any endpoint"),
    ],
)
def test_a_port_that_nobody_has_is_refused(
    before: tuple[Command, ...], service: Service, word: str
) -> None:
    with pytest.raises(RejectedError, match=word):
        decide(draft_of(*before), submission(SetService(WEB, service)), 1)


@pytest.mark.parametrize(
    "service",
    [
        Service(probe=Probe(port=9000)),
        Service(ports=(DNS, HTTP), probe=Probe()),
        Service(ports=(HTTP,), probe=Probe(port="admin")),
    ],
)
def test_a_port_that_an_endpoint_has_is_taken(service: Service) -> None:
    draft = draft_of(SetEndpoint(A, Endpoint(address="10.0.0.1", ports=(ADMIN,))))
    assert decide(draft, submission(SetService(WEB, service)), 1).events


@pytest.mark.parametrize(
    ("probe", "where"),
    [
        ({"timeout_s": 5.0, "interval_s": 5.0}, "probe"),
        ({"timeout_s": 9.0, "interval_s": 5.0}, "probe"),
        ({"status_min": 400, "status_max": 399}, "probe"),
        ({"type": "icmp"}, "probe.type"),
        ({"path": "healthz"}, "probe.path"),
        ({"path": "/a b"}, "probe.path"),
        ({"host": "a\r\nX: y"}, "probe.host"),
        ({"rise": 0}, "probe.rise"),
        ({"interval_s": 0.5}, "probe.interval_s"),
    ],
)
def test_a_wrong_probe_is_refused(probe: dict[str, object], where: str) -> None:
    with pytest.raises(RejectedError) as caught:
        from_data(Service, {"probe": probe}, "")
    assert [problem.where for problem in caught.value.problems] == [where]


def test_a_probe_is_told_to_nobody_and_its_result_is() -> None:
    draft = draft_of(SetCluster(ClusterInfo(name="west", id=7)))
    (event,) = decide(Draft(draft), submission(SetService(WEB, PROBED)), 1).events
    assert "probe" in (event.data or {})
    (told,) = export_events(draft, event)["mesh"]
    assert "probe" not in (told.data or {})
    for command in DEFINED:
        decide(draft, submission(command), 1)
    # Another probe is news to nobody else.
    other = SetService(WEB, Service(ports=(HTTP,), is_global=True, probe=Probe(interval_s=3.0)))
    assert decide(Draft(draft), submission(other), 1).exports == {}
    (failing,) = decide(draft, submission(FAILS), 1).exports["mesh"]
    assert (failing.data or {})["probed"] == "failing"


@pytest.mark.parametrize(
    ("endpoint", "reason", "why"),
    [
        (UP, None, "takes traffic"),
        (Endpoint(address="10.0.0.1", probed=PASSING), None, "takes traffic"),
        (
            Endpoint(address="10.0.0.1", probed=FAILING),
            Reason.PROBE_FAILING,
            "the probes of west find it failing",
        ),
        (
            Endpoint(address="10.0.0.1", probed=ProbeResult.FLAPPING),
            Reason.FLAPPING,
            "west holds it out until it stays well",
        ),
        # Its source's own word comes first.
        (Endpoint(address="10.0.0.1", ready=False, probed=FAILING), Reason.NOT_READY, "not ready"),
    ],
)
def test_tables_and_explanations_name_the_result(
    endpoint: Endpoint, reason: Reason | None, why: str
) -> None:
    state = said("west")
    state.services[WEB] = Held(PROBED, Seq(2), 1, "x")
    state.endpoints[WEB] = {"a": Held(endpoint, Seq(3), 1, "x")}
    found = explain(WEST, WEB, {WEST: state}, {WEST: LOG_ID})
    assert found.service is not None
    assert found.service.backends[0].reason is reason
    assert why in found.endpoints[0].why
