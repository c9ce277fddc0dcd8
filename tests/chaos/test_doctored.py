"""Each validator fails on the history that it is there for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest

from chaos.history import (
    Attempt,
    Completed,
    Deed,
    Entry,
    Invoked,
    LossNamed,
    Outcome,
    PeerSeen,
    RawKey,
    RawLog,
    Row,
    Sample,
    StatusRead,
    StreamMessage,
    TableRead,
)
from chaos.validators.judging import VALIDATORS
from chaos.validators.sentences import SENTENCES
from chaos.validators.verdict import Status
from tests.chaos.doctoring import (
    Bodies,
    Doctor,
    both,
    changed,
    dropped,
    every,
    found,
    keys,
    relogged,
    swapped,
    table,
)
from tests.chaos.model_logs import Event, key_of
from tests.chaos.model_run import MS
from tests.chaos.stories import evidence, kill_one, numbered, poison_one, restore_one, wipe_one

KILL, WIPE, POISON, RESTORE = (
    cache(story) for story in (kill_one, wipe_one, poison_one, restore_one)
)


@dataclass(frozen=True)
class Case:
    """of: what is violated. done: how a clean history was falsified. says: of the reason."""

    of: str
    done: str
    doctor: Doctor
    says: str
    story: Callable[[], list[Entry]] = KILL


def other_weight(bodies: Bodies) -> Bodies:
    """The third record's event has another weight."""
    kind, key, data, *rest = bodies[2][0]
    return [*bodies[:2], [[kind, key, {**data, "weight": 1}, *rest]], *bodies[3:]]


def again(bodies: Bodies) -> Bodies:
    return [*bodies, bodies[2]]


def with_event(*event: object) -> Callable[[Bodies], Bodies]:
    new: Event = list(event)
    return lambda bodies: [*bodies, [new]]


def flipped(known: list[RawKey]) -> list[RawKey]:
    """One byte of the third record is another."""
    raw = bytearray(base64.b64decode(known[3].value))
    raw[-1] ^= 1
    value = base64.b64encode(bytes(raw)).decode()
    return [*known[:3], known[3]._replace(value=value), *known[4:]]


def crossed(known: list[RawKey]) -> list[RawKey]:
    one, other = known[3], known[4]
    return [
        *known[:3],
        one._replace(value=other.value),
        other._replace(value=one.value),
        *known[5:],
    ]


def revision_back(known: list[RawKey]) -> list[RawKey]:
    return [*known[:4], known[4]._replace(revision=1), *known[5:]]


def rewritten(known: list[RawKey]) -> list[RawKey]:
    return [*known[:4], known[4]._replace(version=2), *known[5:]]


def copied_from(cluster: str, log: str) -> Doctor:
    """The last dump of b's log of that name is the other cluster's."""

    def doctor(entries: list[Entry]) -> list[Entry]:
        _, dump = found(entries, RawLog, -1, cluster=cluster, log=log)
        return changed(RawLog, -1, {"cluster": "b", "log": log}, keys=dump.keys)(entries)

    return doctor


def vector_of(cluster: str, seq_of: Callable[[int], int]) -> Callable[[str], str]:
    """A vector with another seq of a cluster."""

    def change(vector: str) -> str:
        parts = [part.split(":") for part in vector.split(",")]
        return ",".join(
            f"{name}:{log_id}:{seq_of(int(seq)) if name == cluster else seq}"
            for name, log_id, seq in parts
        )

    return change


def old_vector(entries: list[Entry]) -> list[Entry]:
    """a's last status is as it was before c was wiped, and it calls c Ready."""
    _, old = found(entries, StatusRead, 2, cluster="a")
    return changed(StatusRead, -1, {"cluster": "a"}, vector=old.vector, peers=old.peers)(entries)


def phase_of(name: str, phase: str) -> Callable[[tuple[PeerSeen, ...]], tuple[PeerSeen, ...]]:
    return lambda peers: tuple(
        peer._replace(phase=phase) if peer.name == name else peer for peer in peers
    )


def lagging(peers: tuple[PeerSeen, ...]) -> tuple[PeerSeen, ...]:
    return (peers[0]._replace(lag_s=99.0), *peers[1:])


def without_first(rows: list[Row]) -> list[Row]:
    return rows[1:]


def without(cluster: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [row for row in rows if row.cluster != cluster]


def with_row(**changes: object) -> Callable[[list[Row]], list[Row]]:
    """The first backend of b is another."""

    def edit(rows: list[Row]) -> list[Row]:
        index = next(index for index, row in enumerate(rows) if row.cluster == "b")
        new = rows[index]._replace(**changes)  # type: ignore[arg-type]
        return [*rows[:index], new, *rows[index + 1 :]]

    return edit


def later(by_ms: int) -> Callable[[Entry], Entry]:
    return lambda entry: replace(entry, at_ns=entry.at_ns + by_ms * MS)


def disturbed_ops(entries: list[Entry], cluster: str) -> set[int]:
    """The operations of a cluster that were sent while c was dead."""
    return {
        entry.op
        for entry in entries
        if isinstance(entry, Invoked) and entry.cluster == cluster and 80 <= entry.op <= 120
    }


def slow_commands(entries: list[Entry]) -> list[Entry]:
    ops = disturbed_ops(entries, "a")
    return every(Completed, lambda entry: entry.op in ops, later(90))(entries)


def slow_stream(entries: list[Entry]) -> list[Entry]:
    """While c is dead b is told late of what a does."""
    _, first = found(entries, Invoked, op=80)
    _, last = found(entries, Invoked, op=120)
    return every(
        StreamMessage,
        lambda one: (one.cluster, one.of) == ("b", "a") and first.at_ns < one.at_ns < last.at_ns,
        later(200),
    )(entries)


def twice_looked(entries: list[Entry]) -> list[Entry]:
    """a's table is read again while c is dead, and a backend of b is gone from it."""
    tables = [one for one in entries if isinstance(one, TableRead) and one.cluster == "a"]
    one = next(table for table in tables if table.stale)
    rows = [row for row in (one.services or {})["shop/web"] if row.cluster != "b"]
    index = entries.index(one)
    again = replace(one, at_ns=one.at_ns + 1, services={"shop/web": tuple(rows)})
    return [*entries[: index + 1], again, *entries[index + 1 :]]


def second_meshd(entries: list[Entry]) -> list[Entry]:
    """Another meshd of b was read beside the first one, and it stays behind."""
    index, one = found(entries, TableRead, -1, cluster="b")
    vector = vector_of("a", lambda seq: seq - 1)(one.vector)
    other = replace(one, process="b2", vector=vector, digest="")
    return [*entries[: index + 1], other, *entries[index + 1 :]]


def late(entries: list[Entry]) -> list[Entry]:
    """b's table was read behind the bound a moment before it came to where it must be."""
    index, one = found(entries, TableRead, -1, cluster="b")
    behind = vector_of("a", lambda seq: seq - 1)(one.vector)
    before = replace(one, at_ns=one.at_ns - 1, vector=behind, digest="")
    return [*entries[:index], before, *entries[index:]]


def silent_reset(entries: list[Entry]) -> list[Entry]:
    """Nobody told a's subscriber that c's log has another past: it goes on where it was."""
    reset, _ = found(entries, StreamMessage, 0, cluster="a", of="c", reset=True)
    told = [one for one in entries[:reset] if isinstance(one, StreamMessage)]
    end = max(one.seq for one in told if (one.cluster, one.of) == ("a", "c"))
    return [
        *entries[:reset],
        *(
            one
            for one in entries[reset + 1 :]
            if not isinstance(one, StreamMessage)
            or (one.cluster, one.of) != ("a", "c")
            or one.seq > end
        ),
    ]


def asked_before_the_last(entries: list[Entry]) -> list[Entry]:
    """The last dump of b lacks b's last command, and was asked for before that was answered."""
    _, last = found(entries, Completed, -1, op=last_op(entries, "b"))
    doctored = relogged("b", "local", lambda all_: all_[:-1])(entries)
    of_b = {"cluster": "b", "log": "local"}
    return changed(RawLog, -1, of_b, asked_ns=last.at_ns - 1)(doctored)


def last_op(entries: list[Entry], cluster: str) -> int:
    return found(entries, Invoked, -1, cluster=cluster)[1].op


OPERATION = {"op": 90}
ANY_TABLE = {"anew": True}

CASES = [
    Case("I1", "an acknowledged event was dropped", relogged("b", "local", lambda all_: all_[:-1]),
         "was acknowledged and the log ends at"),
    Case("I1", "an event in the middle was dropped",
         relogged("b", "local", lambda all_: [*all_[:8], *all_[9:]]), "and was made for"),
    Case("I1", "the log is another one, and nobody says what is lost", dropped(LossNamed, 0),
         "was acknowledged in log", WIPE),
    Case("I1", "less is named lost than was", changed(LossNamed, 0, {}, last_seq=9),
         "was acknowledged in log", WIPE),
    Case("I1", "the answer says more events than there are",
         changed(Completed, 0, OPERATION, first_seq=lambda seq: seq - 1), "was acknowledged for"),
    Case("I2", "a key made its event again", relogged("b", "local", again), "made events 2 times"),
    Case("I2", "what was refused was done",
         changed(Completed, 0, OPERATION, outcome=Outcome.FAIL), "was refused and made events"),
    Case("I2", "two commands were given one event",
         both(changed(Invoked, 1, {"cluster": "b"}, key="other"),
              changed(Completed, 4, {}, first_seq=3, last_seq=3)), "two commands were told"),
    Case("I3", "a record is missing", keys("b", "local", lambda all_: [*all_[:5], *all_[6:]]),
         "gap after"),
    Case("I3", "a record is there twice",
         keys("b", "local", lambda all_: [*all_[:6], all_[5]._replace(key=all_[6].key), *all_[7:]]),
         "gap after"),
    Case("I3", "two records changed places", keys("b", "local", crossed), "gap after"),
    Case("I3", "a record was tampered with", keys("b", "local", flipped), "the chain is broken"),
    Case("I3", "a revision goes back", keys("b", "local", revision_back), "revision went back"),
    Case("I3", "the head is beyond the log", keys("b", "local", lambda all_: all_[:-1]),
         "its log ends at"),
    Case("I3", "something else than a record",
         keys("b", "local", lambda all_: [*all_[:5], key_of(all_[5].key, 99, b"\xc1"), *all_[6:]]),
         "is no record"),
    Case("I4", "a key was written twice", keys("b", "local", rewritten), "was written 2 x"),
    Case("I4", "a record is another than it was", relogged("b", "local", other_weight),
         "is another than before"),
    Case("I4", "a record was deleted", keys("b", "local", lambda all_: [*all_[:5], *all_[6:]]),
         "is gone, and the log is trimmed up to 0 only"),
    Case("I5", "an event was not told within a connection",
         dropped(StreamMessage, 8, cluster="a", of="b"), "was told seq"),
    Case("I5", "an event was told twice within a connection",
         changed(StreamMessage, 8, {"cluster": "a", "of": "b"}, seq=lambda seq: seq - 1),
         "was told seq"),
    Case("I5", "a meshd's vector goes back",
         changed(StatusRead, 6, {"cluster": "a"}, vector=vector_of("b", lambda seq: seq - 7)),
         "a went back from"),
    Case("I6", "a replica's record is another", relogged("a", "replica/b", other_weight),
         "differs from b's log"),
    Case("I6", "a snapshot is not what it replaces",
         relogged("b", "export/mesh", other_weight, summed_up=3), "is not what the events"),
    Case("I6", "a part of a snapshot is another",
         keys("a", "local", lambda all_: [*all_[:-1], all_[-1]._replace(value="")]),
         "part 0 is another"),
    Case("I7", "two clusters have one log", copied_from("a", "export/mesh"), "is of export/mesh"),
    Case("I7", "a log was replaced, and a reader stays on the old one", old_vector,
         "still reads log", WIPE),
    Case("I7", "a reader stands beyond the end of the new log",
         changed(StatusRead, -1, {"cluster": "a"}, vector=vector_of("c", lambda seq: seq + 50)),
         "whose log ends at", WIPE),
    Case("I7", "a record of another log",
         keys("b", "local", lambda all_: [*all_[:2], key_of(all_[2].key, 12, bytes.fromhex(
             "96" "01" "c410" + "ab" * 16 + "02" "00" "c410" + "00" * 16 + "91" "95a0a0c0a0a0")),
             *all_[3:]]), "is of another log"),
    Case("I8", "a table has what no log has", table("a", -1, with_row(name="ghost")),
         "whose log never had it"),
    Case("I8", "a table has it at another address", table("a", 3, with_row(address="10.9.9.9")),
         "whose log never had it"),
    Case("I8", "a table has a backend of nobody", table("a", -1, with_row(cluster="nobody")),
         "whose log never had it"),
    Case("I8", "a table has what somebody wrote into a log on purpose",
         table("a", -1, with_row(cluster="c", name="bad", address="10.9.9.9")),
         "whose log never had it", POISON),
    Case("I8", "a log speaks for another cluster",
         relogged("b", "export/mesh", with_event("cluster.set", "c", {"name": "c"}, "b", "")),
         "the log of b speaks for c"),
    Case("I9", "who came later is earlier in the log",
         swapped(Completed, 3, 6, "first_seq", "last_seq", "log_id"), "was sent after"),
    Case("I9", "time goes back in a log",
         relogged("b", "local", lambda all_: all_, times=lambda revision: 1000 - revision),
         "time goes back"),
    Case("I10", "a reader goes on behind the bad record",
         changed(StatusRead, -4, {"cluster": "a"}, vector=vector_of("c", lambda seq: seq + 1)),
         "whose log is bad from", POISON),
    Case("I10", "a table has what is behind it",
         changed(TableRead, -5, {"cluster": "a", "anew": False},
                 vector=vector_of("c", lambda seq: seq + 1)), "whose log is bad from", POISON),
    Case("I10", "another peer is quarantined as well",
         changed(StatusRead, -4, {"cluster": "a"}, peers=phase_of("b", "Quarantined")),
         "quarantines b as well", POISON),
    Case("I10", "nobody minds the bad record",
         changed(StatusRead, -4, {"cluster": "a"}, peers=phase_of("c", "Ready")),
         "calls c Ready", POISON),
    Case("I11", "a backend is missing at the end", table("a", -1, without_first), "not there"),
    Case("I11", "a backend has another priority", table("a", -1, with_row(priority=10)),
         "shop/web: "),
    Case("I11", "a backend has another weight", table("a", -1, with_row(weight=1.5)), "shop/web: "),
    Case("I11", "a backend is out for no reason", table("a", -1, with_row(reason="not-ready")),
         "shop/web: "),
    Case("I11", "a whole service is missing",
         changed(TableRead, -1, {"cluster": "b"}, services={}), "shop/web is missing"),
    Case("I11", "there is a service too many",
         changed(TableRead, -1, {"cluster": "b"}, services=lambda known: {**known, "x/y": ()}),
         "x/y is served"),
    Case("I11", "a cluster never came to another's head",
         changed(TableRead, -1, {"cluster": "b"}, vector=vector_of("a", lambda seq: seq - 1)),
         "whose log ends at"),
    Case("I11", "a cluster came to another's head too late", late, "b stands at a:"),
    Case("I11", "of two meshds of a cluster one stays behind", second_meshd, "b2, "),
    Case("I12", "a command failed in a cluster without a fault",
         changed(Completed, 0, OPERATION, outcome=Outcome.UNKNOWN, status=0, error="timed out"),
         "while only others had a fault"),
    Case("I12", "a command was refused for another's sake",
         changed(Completed, 0, OPERATION, outcome=Outcome.FAIL, status=503),
         "came to fail (status 503)"),
    Case("I12", "commands became slow", slow_commands, "p99 of append in a rose from 5 ms to 95"),
    Case("I12", "replication became slow", slow_stream, "p99 of lag of what b reads rose"),
    Case("I12", "a table changed by itself", twice_looked, "no event says so: shop/web: b/"),
    Case("I13", "an event was never told",
         dropped(StreamMessage, 8, cluster="a", of="b"), "were never told, without a reset"),
    Case("I13", "an event was not told again after a reconnect",
         dropped(StreamMessage, 0, cluster="c", of="b", connection=3),
         "were never told, without a reset"),
    Case("I13", "an event was told twice",
         changed(StreamMessage, 8, {"cluster": "a", "of": "b"}, seq=lambda seq: seq - 1),
         "was told after"),
    Case("I13", "two events changed places",
         swapped(StreamMessage, 8, 9, "seq", cluster="a", of="b"), "was told after"),
    Case("I13", "another event was told",
         changed(StreamMessage, 8, {"cluster": "a", "of": "b"}, subject="shop/web/zz"),
         "it is endpoint.set of"),
    Case("I13", "more was told than there is",
         changed(StreamMessage, -1, {"cluster": "a", "of": "b"}, seq=lambda seq: seq + 70),
         "and the log ends at"),
    Case("I13", "another log was told without a reset", dropped(StreamMessage, 0, cluster="a",
         of="c", reset=True), "another log", WIPE),
    Case("I13", "what a log lost under its id was passed over", silent_reset,
         "though it was told", RESTORE),
    Case("I14", "too much memory", changed(Sample, 9, {}, rss_bytes=2**31),
         "has 2147483648 bytes of memory"),
    Case("I14", "too many descriptors", changed(Sample, 9, {}, fds=5000), "has 5000 descriptors"),
    Case("I14", "too many tasks", changed(Sample, 9, {}, tasks=5000), "has 5000 tasks"),
    Case("I14", "too many connections", changed(Sample, 9, {}, connections=999),
         "has 999 connections"),
    Case("I14", "connecting again and again", changed(Sample, 9, {}, connects=999),
         "tried to connect"),
    Case("I15", "Ready, and far behind", changed(StatusRead, 9, {}, peers=lagging),
         "99.0 s behind it"),
    Case("I15", "a peer's backends vanished with it",
         table("a", -1, without("b")), "lost 3 backends of b"),
    Case("I15", "one vector, two digests", changed(StatusRead, 9, {}, digest="0"),
         "has the digest"),
    Case("I16", "a peer's etcd could be written to",
         changed(Attempt, 0, {"deed": Deed.WRITE}, done=True), "a wrote k in the etcd of b"),
    Case("I17", "what is not for others could be read",
         changed(Attempt, 0, {"deed": Deed.READ}, done=True), "a read k in the etcd of b"),
    Case("I17", "a service that isn't shared was told",
         relogged("b", "export/mesh", with_event("service.set", "own/x", {}, "b", "")),
         "own/x, which is not shared"),
    Case("I17", "the audiences of a service were told",
         relogged("b", "export/mesh", with_event("service.set", "own/x", {
             "global": True, "export": {"audiences": ["eu"]}}, "b", "")), "the audiences of own/x"),
    Case("I17", "the audiences of a cluster were told",
         relogged("b", "export/mesh", with_event("cluster.set", "b", {"audiences": []}, "b", "")),
         "audiences of b"),
    Case("I17", "an operation was told",
         relogged("b", "export/mesh", with_event("operation.set", "o", {}, "b", "")),
         "operation.set of o"),
    Case("I17", "an idempotency key was told",
         relogged("b", "export/mesh", with_event("service.removed", "own/x", None, "b", "mine")),
         "the idempotency key 'mine'"),
    Case("I18", "the digest derived anew is another", changed(TableRead, 0, ANY_TABLE, digest="0"),
         "the digests differ"),
    Case("I18", "the table derived anew is another",
         changed(TableRead, 0, ANY_TABLE, services={"shop/web": ()}), "shop/web differ"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{case.of}: {case.done}" for case in CASES])
def test_it_is_found(case: Case) -> None:
    entries = case.doctor(case.story())
    verdict = VALIDATORS[case.of](evidence(entries))
    assert verdict.status is Status.VIOLATED
    reasons = [violation.reason for violation in verdict.violations]
    assert any(case.says in reason for reason in reasons), reasons
    for violation in verdict.violations:
        assert SENTENCES[case.of][1] in str(violation)
        assert violation.lines
        assert all(1 <= line <= len(entries) + 1 for line in violation.lines)


def test_a_run_that_ended_too_early_is_held_against_nobody() -> None:
    """b isn't there yet, and nobody looked at it again."""
    last, _ = found(KILL(), TableRead, -1, cluster="b")
    entries = [*KILL()[:last], *KILL()[last + 1 :]]
    doctor = changed(TableRead, -1, {"cluster": "b"}, vector=vector_of("a", lambda seq: seq - 1))
    verdict = VALIDATORS["I11"](evidence(doctor(entries)))
    assert verdict.status is Status.HOLDS
    assert any("b: stands at" in what and "the run ended" in what for what in verdict.missing)


def test_what_was_done_while_a_log_was_dumped_may_be_missing_in_it() -> None:
    verdict = VALIDATORS["I1"](evidence(asked_before_the_last(KILL())))
    assert verdict.status is Status.HOLDS
    assert "no later dump of the local log of b" in verdict.missing


@pytest.mark.parametrize(("story", "violated"), [(RESTORE, False), (WIPE, True)])
def test_whose_place_another_has_taken_under_one_id_needs_no_name(
    story: Callable[[], list[Entry]], violated: bool
) -> None:
    """Who asked what is lost was told of that behind the log's end alone."""
    _, named = found(story(), LossNamed)
    doctor = changed(LossNamed, 0, {}, first_seq=named.last_seq)
    verdict = VALIDATORS["I1"](evidence(doctor(story())))
    assert (verdict.status is Status.VIOLATED) == violated
    assert any("whose places" in what for what in verdict.missing) == (not violated)


@pytest.mark.parametrize(("story", "violated"), [(RESTORE, False), (KILL, True)])
@pytest.mark.parametrize("of", ["c", "b"])
def test_a_log_that_was_put_back_may_come_to_its_old_seq_by_other_events(
    story: Callable[[], list[Entry]], violated: bool, of: str
) -> None:
    """c's own table, or b's, is read a last time at its old vector, without c's backends."""
    entries = story()
    (fault,) = evidence(entries).faults
    tables = [one for one in entries if isinstance(one, TableRead) and one.cluster == of]
    before = [one for one in tables if one.at_ns < fault.start_ns][-1]
    rows = tuple(row for row in (before.services or {})["shop/web"] if row.cluster != "c")
    last_ns = entries[-1].at_ns
    again = replace(before, at_ns=last_ns, digest="another", services={"shop/web": rows})
    meanwhile = [one for one in tables if one.at_ns >= fault.start_ns]
    rest = [one for one in entries[:-1] if one not in meanwhile]
    verdict = VALIDATORS["I15"](evidence(numbered([*rest, again, entries[-1]])))
    reasons = " ".join(one.reason for one in verdict.violations)
    assert (f"the table of {of} lost" in reasons) == violated
    assert ("has the digest" in reasons) == violated


def test_there_is_a_case_for_every_validator() -> None:
    assert {case.of for case in CASES} == VALIDATORS.keys()
