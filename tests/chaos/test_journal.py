"""Histories are read back as they were written, and everything else is refused by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chaos import journal
from chaos.history import (
    KINDS,
    Attempt,
    Bounds,
    Change,
    Completed,
    Deed,
    Entry,
    FaultBit,
    FaultHealed,
    FaultInjected,
    Invoked,
    LossNamed,
    Outcome,
    PeerSeen,
    Process,
    RawKey,
    RawLog,
    Request,
    Row,
    RunEnded,
    RunStarted,
    Sample,
    Stalled,
    StatusRead,
    StreamMessage,
    TableRead,
)

VECTOR = "east:" + "e" * 32 + ":4"
START = RunStarted(
    at_ns=5,
    seed=7,
    scenario="isolation",
    versions={"meshd": "0.1.0", "etcd": "3.5.30"},
    clusters=("east", "west"),
    bounds=Bounds(converge_s=3),
)
ROW = Row("east", "a", "10.0.0.1", "80/TCP http", 16, 33.3, "not-ready")
ONE_OF_EACH: tuple[Entry, ...] = (
    START,
    FaultInjected(at_ns=6, fault_id=1, fault="kill", clusters=("east",), loses=("east",)),
    FaultBit(at_ns=6, fault_id=1, proof="pid 7 is gone"),
    FaultHealed(at_ns=6, fault_id=1, begun_ns=6),
    Invoked(at_ns=6, op=1, cluster="east", caller="c1", key="c1-1", command="set shop/cart"),
    Completed(at_ns=7, op=1, outcome=Outcome.OK, log_id="e" * 32, first_seq=3, last_seq=4),
    StreamMessage(
        at_ns=7,
        subscriber="s",
        connection=1,
        cluster="west",
        of="east",
        log="export/mesh",
        log_id="e" * 32,
        seq=4,
    ),
    TableRead(at_ns=8, reader="r", process="m", cluster="east", vector=VECTOR, digest="d"),
    TableRead(
        at_ns=8,
        reader="r",
        process="m",
        cluster="east",
        vector=VECTOR,
        digest="d",
        services={"a/b": (ROW,)},
    ),
    StatusRead(
        at_ns=8,
        process="m",
        cluster="east",
        ready=True,
        vector=VECTOR,
        peers=(PeerSeen("west", "Ready", 4, 0.5),),
    ),
    LossNamed(at_ns=8, cluster="east", log_id="e" * 32, first_seq=1, last_seq=2, said_by="s"),
    Request(at_ns=8, cluster="east", service="a/b", answered_by="", backend="", took_ns=9),
    Attempt(at_ns=8, cluster="a", target="b", deed=Deed.WRITE, key="k", may=False, done=False),
    Sample(at_ns=8, process="m", cluster="east", rss_bytes=1),
    RawLog(at_ns=8, cluster="east", log="local", keys=(RawKey("head", 9, 1, "e30="),), asked_ns=7),
    Process(at_ns=8, process="m", cluster="east", pid=7, change=Change.KILLED, status=-9),
    Stalled(at_ns=9, from_ns=8),
    RunEnded(at_ns=9),
)


def test_every_kind_is_tried() -> None:
    assert {entry.KIND for entry in ONE_OF_EACH} == KINDS.keys()


def test_the_readme_tells_every_kind() -> None:
    readme = (Path(journal.__file__).parent / "README.md").read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in readme] == []


def test_what_is_written_is_read_back_equal_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with journal.Writer(path) as writer:
        for entry in ONE_OF_EACH:
            writer.write(entry)
    read = journal.read(path)
    assert read.entries == ONE_OF_EACH
    assert [entry.line for entry in read.entries] == list(range(1, len(ONE_OF_EACH) + 1))
    assert read.cut == ""


@pytest.mark.parametrize("lost", [1, 2, 30])
def test_a_cut_last_line_is_left_out_and_told(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "history.jsonl"
    journal.write(path, ONE_OF_EACH[:-1])
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    read = journal.read(path)
    assert read.entries == ONE_OF_EACH[:-2]
    assert f"line {len(ONE_OF_EACH) - 1} is cut" in read.cut


def test_who_writes_on_after_a_crash_begins_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    journal.write(path, ONE_OF_EACH[:3])
    long = b'{"kind":"' + b"x" * (2 * journal.TAIL_BYTES)
    path.write_bytes(path.read_bytes() + long)
    with journal.Writer(path) as writer:
        writer.write(ONE_OF_EACH[3])
    assert journal.read(path).entries == ONE_OF_EACH[:4]


def test_what_is_late_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with journal.Writer(path) as writer:
        writer.write(START)
        with pytest.raises(
            journal.JournalError, match="invoked is 2 ns late: write it at the time"
        ):
            writer.write(Invoked(at_ns=3, op=1, cluster="a", caller="c", key="", command="x"))
    assert journal.read(path).entries == (START,)


def line_of(entry: Entry, **changes: Any) -> bytes:
    data = json.loads(journal.encode(entry)) | changes
    return json.dumps({name: value for name, value in data.items() if value is not ...}).encode()


HEADER = journal.encode(START)
INVOKED = ONE_OF_EACH[4]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "h, line 2: no JSON"),
        (b"7", "h, line 2: no entry"),
        (b'{"kind":"rumour"}', "h, line 2: unknown kind 'rumour': known are attempt, completed"),
        (b'{"kind":[]}', "h, line 2: unknown kind []"),
        (line_of(INVOKED, mood="good"), "unknown field 'mood' of invoked: known are at_ns, op"),
        (line_of(INVOKED, line=3), "unknown field 'line' of invoked"),
        (line_of(INVOKED, key=...), "invoked has no field key"),
        (line_of(INVOKED, op="1"), "h, line 2: invoked.op is '1': write a whole number"),
        (line_of(INVOKED, op=True), "invoked.op is True: write a whole number"),
        (line_of(INVOKED, op=2**70), "invoked.op is"),
        (line_of(INVOKED, key=None), "invoked.key is None: write a text"),
        (line_of(ONE_OF_EACH[5], outcome="perhaps"), "write one of ok, fail, unknown"),
        (line_of(ONE_OF_EACH[9], ready=1), "status.ready is 1: write true or false"),
        (line_of(ONE_OF_EACH[9], peers=[["west"]]), "write a list of name, phase, seq, lag_s"),
        (line_of(ONE_OF_EACH[9], peers=[["west", "Ready", 4, "x"]]), "is 'x': write a number"),
        (line_of(ONE_OF_EACH[9], peers={}), "status.peers is {}: write a list"),
        (line_of(ONE_OF_EACH[8], services=[]), "table.services is []: write an object"),
        (line_of(ONE_OF_EACH[9], vector="east:4"), "write positions like `cluster:log id:seq`"),
        (line_of(ONE_OF_EACH[9], vector=VECTOR + ","), "write positions like"),
        (line_of(ONE_OF_EACH[9], vector=None), "write positions like"),
        (line_of(ONE_OF_EACH[14], keys=[["head", 1, 1, "%"]]), "is '%': write base64"),
        (line_of(ONE_OF_EACH[14], keys=[["head", 1, 1, 7]]), "is 7: write base64"),
        (line_of(ONE_OF_EACH[1], poisons=["x"]), "fault-injected.poisons is 'x': write positions"),
        (line_of(START, bounds={}), "run.bounds is {}: write an object with just converge_s"),
        (line_of(INVOKED, at_ns=4), "time goes back by 1 ns: all entries are of one monotonic"),
    ],
)
def test_what_is_no_entry_is_refused_by_its_line(line: bytes, says: str) -> None:
    with pytest.raises(journal.JournalError) as error:
        journal.read_lines([HEADER, line + b"\n"], "h")
    assert str(error.value).startswith("h, line 2: ")
    assert says in str(error.value)
    assert error.value.line == 2


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "h: it doesn't begin with the header of a run"),
        ([journal.encode(INVOKED)], "h, line 1: it doesn't begin with the header of a run"),
        ([line_of(START, format=2) + b"\n"], "h, line 1: a history of format 2: this version"),
        ([HEADER, HEADER[:9], HEADER], "h, line 2: the line has no end"),
    ],
)
def test_what_is_no_history_is_refused(lines: list[bytes], says: str) -> None:
    with pytest.raises(journal.JournalError, match=says.replace("(", r"\(")):
        journal.read_lines(lines, "h")


def test_a_line_may_not_be_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LINE_BYTES_MAX", len(HEADER) - 1)
    with pytest.raises(journal.JournalError, match="h, line 1: longer than"):
        journal.read_lines([HEADER], "h")
