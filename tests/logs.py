"""Logs and commands to test with: chained records by hand, and histories from Hypothesis.

For: tests of model, core and runtime. Not for: checking anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from meshd.model.cluster import Availability, ClusterInfo
from meshd.model.codec import encode_record
from meshd.model.command import (
    AllocateIdentity,
    Command,
    DescribeCluster,
    IntroduceCluster,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemovePeer,
    RemovePolicy,
    RemoveService,
    RemoveSkip,
    ReplaceEndpoints,
    SetCluster,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPeer,
    SetPolicy,
    SetService,
    SkipRecord,
    Submission,
)
from meshd.model.endpoint import Endpoint
from meshd.model.event import Event, Record
from meshd.model.identity import Identity, identity_number
from meshd.model.ids import ClusterName, EndpointKey, Head, LogId, PolicyKey, ServiceKey
from meshd.model.listed import ListedPeer, ListedTls, SkippedRecord
from meshd.model.node import Node
from meshd.model.policy import Direction, LabelSelector, Policy, Rule
from meshd.model.replica import Fetched
from meshd.model.service import Affinity, Port, Service, Transport
from meshd.model.staleness import Staleness, StalenessPolicy

WEST = ClusterName("west")
LOG_ID = LogId("a" * 32)
OTHER_LOG_ID = LogId("b" * 32)


def ticked(number: int = 1, cause: str = "") -> Event:
    """Make an event that every reader folds and that differs from the others."""
    return Event(
        "service.set", "shop/web", {"global": True, "created_ms": number}, actor="ann", cause=cause
    )


@dataclass(slots=True)
class Log:
    """A log as it lies in an etcd, with mod revisions that rise by two."""

    head: Head = field(default_factory=lambda: Head.genesis(LOG_ID))
    records: list[Record] = field(default_factory=list)

    def append(self, *events: Event, time_ms: int = 1000) -> Record:
        record = encode_record(self.head, time_ms, events or (ticked(self.head.seq + 1),))
        self.head = record.head
        self.records.append(record)
        return record

    def fetched(self) -> tuple[Fetched, ...]:
        return tuple(
            Fetched(record.last_seq, 10 + 2 * number, record.raw)
            for number, record in enumerate(self.records)
        )


def log_of(*sizes: int, log_id: LogId = LOG_ID) -> Log:
    """Make a log whose records hold so many events each."""
    log = Log(Head.genesis(log_id))
    for size in sizes:
        log.append(*(ticked(log.head.seq + 1 + n) for n in range(size)))
    return log


# Histories. Names are few, so that commands meet each other.

SERVICES = tuple(ServiceKey("shop", name) for name in ("web", "cart"))
NAMES = ("a", "b", "c")
SOURCES = ("", "slice-1")

service_keys = st.sampled_from(SERVICES)
endpoint_keys = st.builds(EndpointKey, service_keys, st.sampled_from(NAMES))
services = st.builds(
    Service,
    is_global=st.booleans(),
    is_shared=st.sampled_from((None, True, False)),
    affinity=st.sampled_from(Affinity),
    ports=st.sampled_from(((), (Port(80, "http"),), (Port(53, "dns", Transport.UDP),))),
    labels=st.sampled_from(({}, {"team": "shop"})),
    created_ms=st.sampled_from((0, 5)),
)
endpoints = st.builds(
    Endpoint,
    address=st.sampled_from(("10.0.0.1", "10.0.0.2", "2001:db8::1")),
    ready=st.booleans(),
    serving=st.sampled_from((None, True)),
    weight=st.sampled_from((0, 100)),
    source=st.sampled_from(SOURCES),
)
infos = st.builds(ClusterInfo, name=st.just("west"), id=st.just(7), zone=st.sampled_from(("", "z")))
descriptions = st.builds(
    DescribeCluster,
    st.sampled_from(Availability),
    st.sampled_from((0, 100)),
    st.sampled_from(((), ("10.1.0.0/16",))),
)
NODES = ("n1", "n2.zone")
AUDIENCES = st.just(("mesh",))
"""The only one that every cluster has; `test_export` has others."""
nodes = st.builds(
    Node,
    addresses=st.sampled_from((("10.0.1.1",), ("10.0.1.1", "2001:db8::1"))),
    pod_cidrs=st.sampled_from(((), ("10.1.1.0/24",))),
    tunnel_endpoint=st.sampled_from(("", "10.0.1.1:51820")),
    audiences=AUDIENCES,
)
LABELS = ({"app": "web"}, {"app": "cart"}, {"app": "web", "tier": "front"})
NUMBERS = tuple(identity_number(7, local) for local in (256, 257, 65_535))


def _numbered(number: int, audiences: tuple[str, ...]) -> SetIdentity:
    """Labels that no other number has, so that it is never refused."""
    return SetIdentity(number, Identity(labels={"number": str(number)}, audiences=audiences))


POLICIES = (PolicyKey("shop", "web"), PolicyKey("shop", "deny.all"))
policies = st.builds(
    Policy,
    subjects=st.sampled_from((LabelSelector(), LabelSelector(labels={"app": "web"}))),
    directions=st.just((Direction.INGRESS,)),
    ingress=st.sampled_from(((), (Rule(),))),
    audiences=AUDIENCES,
)
PEERS = (ClusterName("b"), ClusterName("b2"))
peer_names = st.sampled_from(PEERS)
listed_peers = st.builds(
    ListedPeer,
    endpoints=st.sampled_from((("b:2379",), ("b:2379", "[::1]:2379"))),
    tls=st.sampled_from((ListedTls(), ListedTls(ca_file="/ca.pem"))),
    staleness=st.sampled_from(
        (Staleness(), Staleness(policy=StalenessPolicy.KEEP, stale_after_s=5.0))
    ),
    announces=st.sampled_from(((), ("10.0.0.0/8",))),
)
log_ids = st.sampled_from((LOG_ID, OTHER_LOG_ID))
skipped_records = st.builds(
    SkippedRecord, seq=st.integers(1, 3), hash=st.sampled_from(("0" * 32, "1" * 32))
)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(SetCluster, infos),
    st.builds(SetService, service_keys, services),
    st.builds(RemoveService, service_keys),
    st.builds(SetEndpoint, endpoint_keys, endpoints),
    st.builds(RemoveEndpoint, endpoint_keys),
    st.builds(
        ReplaceEndpoints,
        service_keys,
        st.sampled_from(SOURCES),
        st.dictionaries(st.sampled_from(NAMES), endpoints, max_size=2),
    ),
    st.builds(SetNode, st.sampled_from(NODES), nodes),
    st.builds(RemoveNode, st.sampled_from(NODES)),
    st.builds(
        AllocateIdentity,
        st.sampled_from(LABELS),
        st.one_of(st.none(), AUDIENCES),
        st.sampled_from((None, "", "Owner/ann")),
    ),
    st.builds(_numbered, st.sampled_from(NUMBERS), AUDIENCES),
    st.builds(RemoveIdentity, st.sampled_from(NUMBERS)),
    st.builds(SetPolicy, st.sampled_from(POLICIES), policies),
    st.builds(RemovePolicy, st.sampled_from(POLICIES)),
    st.builds(IntroduceCluster, infos),
    descriptions,
    st.builds(SetPeer, peer_names, listed_peers),
    st.builds(RemovePeer, peer_names),
    st.builds(SkipRecord, peer_names, log_ids, skipped_records),
    st.builds(RemoveSkip, peer_names, log_ids),
)


NEED_A_NAME = (AllocateIdentity, SetIdentity, DescribeCluster)
"""What a cluster can only do once it has said who it is."""


def _introduced(submission: Submission) -> Submission:
    """Have the cluster say who it is before what needs that."""
    if not any(isinstance(command, NEED_A_NAME) for command in submission.commands):
        return submission
    introduction = IntroduceCluster(ClusterInfo(name="west", id=7))
    return replace(submission, commands=(introduction, *submission.commands))


def _spoiled(submission: Submission) -> Submission:
    """Make it one that is sure to be rejected, though only for its last command."""
    wrong = RemoveService(ServiceKey("shop", "Not A Label"))
    return replace(submission, commands=(*submission.commands, wrong))


submissions = st.builds(
    Submission,
    st.lists(commands, min_size=1, max_size=3).map(tuple),
    actor=st.just("ann"),
    cause=st.sampled_from(("", "", "key-1", "key-2")),
).map(_introduced)
rejected_submissions = submissions.map(_spoiled)
histories = st.lists(submissions, max_size=12)


def submission(*asked: Command, cause: str = "", actor: str = "ann") -> Submission:
    return Submission(asked, actor, cause)
