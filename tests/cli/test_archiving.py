"""`meshd log` on an in-memory etcd: what is written, what is checked, and what is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from meshd.cli.archiving import opened
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.model.codec import (
    Cursor,
    Descriptor,
    LocalHead,
    encode_cursor,
    encode_descriptor,
    encode_head,
    encode_local_head,
)
from meshd.model.event import Event
from meshd.model.ids import ClusterName, Revision
from meshd.model.keyspace import Keyspace, LogKeys
from meshd.runtime.ports import Delete, Put, Txn
from tests.cli.conftest import Meshd, aside
from tests.logs import OTHER_LOG_ID, WEST, Log, log_of
from tests.mesh import LoopClock

SPACE = Keyspace()
EXPORT = SPACE.export()
ETCD = ("--set", "cluster.name=west", "--set", "cluster.id=7", "--set", "etcd.endpoints=h:1")
Lay = Callable[..., None]


def records(keys: LogKeys, log: Log) -> list[Put]:
    return [Put(keys.record(record.last_seq), record.raw) for record in log.records]


@pytest.fixture
def lay(monkeypatch: pytest.MonkeyPatch) -> Lay:
    """Lay operations into the etcd that the commands find."""
    etcd = MemoryEtcd(LoopClock())
    monkeypatch.setattr("meshd.edges.etcd.connect", lambda _target: MemoryKv(etcd))

    def put(*operations: Put | Delete) -> None:
        aside(lambda: asyncio.run(MemoryKv(etcd).commit(Txn(success=operations))))

    return put


@pytest.fixture
def west(lay: Lay) -> Log:
    """Lay a cluster with a local log, an export log and a replica, all with the same records."""
    log = log_of(2, 1, 3)
    peer = SPACE.replica(ClusterName("east"))
    lay(
        Put(SPACE.descriptor, encode_descriptor(Descriptor(WEST, 7, 1, 1, 5))),
        Put(SPACE.local.head, encode_local_head(LocalHead(log.head, {}))),
        Put(EXPORT.head, encode_head(log.head)),
        Put(peer.cursor, encode_cursor(Cursor(log.head, Revision(3)))),
        *(put for keys in (SPACE.local, EXPORT, peer) for put in records(keys, log)),
    )
    return log


@pytest.mark.parametrize("name", ["local", "export/mesh", "replica/east"])
def test_a_log_goes_into_a_file_and_out_again(
    meshd: Meshd, west: Log, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "a.log"
    done = meshd("log", "export", *ETCD, "--log", name, "-o", str(target))
    assert done.exit_code == 0, done.output
    assert "seq 1 to 6, 6 events" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]

    checked = meshd("log", "verify", str(target), "-o", "json")
    assert checked.exit_code == 0, checked.output
    (row,) = orjson.loads(checked.stdout)
    assert (row["first_seq"], row["last_seq"], row["records"]) == (1, 6, 3)
    assert (row["verdict"], row["first_time"]) == ("ok", "1970-01-01T00:00:01.000Z")
    assert "1 to 6" in meshd("log", "verify", str(target)).stdout
    assert meshd("log", "verify", *ETCD, "--log", name).exit_code == 0

    for output in ("table", "json", "yaml"):
        shown = meshd("log", "cat", str(target), "-o", output)
        assert shown.exit_code == 0
        assert shown.stdout == meshd("log", "cat", *ETCD, "--log", name, "-o", output).stdout
    lines = meshd("log", "cat", str(target), "--from", "2", "--to", "4", "-o", "json").stdout
    events = [orjson.loads(line) for line in lines.splitlines()]
    assert [event["meshdseq"] for event in events] == [2, 3, 4]
    assert {event["meshdcluster"] for event in events} == {
        "east" if name == "replica/east" else "west"
    }


def test_the_state_is_that_of_the_last_event_asked_for(
    meshd: Meshd, west: Log, tmp_path: Path
) -> None:
    target = str(tmp_path / "a.log")
    meshd("log", "export", *ETCD, "-o", target)
    for last, created_ms in ((5, 5), (6, 6), (99, 6)):
        shown = meshd("log", "cat", target, "--state", "--to", str(last), "-o", "json")
        assert orjson.loads(shown.stdout) == {
            "cluster": {},
            "service": {"shop/web": {"global": True, "created_ms": created_ms}},
            "endpoint": {},
        }
    assert "shop/web" in meshd("log", "cat", target, "--state").stdout
    refused = meshd("log", "cat", target, "--state", "--from", "2")
    assert (refused.exit_code, "leave out --from" in refused.stderr) == (2, True)


def test_pieces_of_one_log_join(meshd: Meshd, west: Log, tmp_path: Path) -> None:
    whole, tail = str(tmp_path / "whole"), str(tmp_path / "tail")
    meshd("log", "export", *ETCD, "-o", whole)
    done = meshd("log", "export", *ETCD, "--from", "5", "-o", tail)
    assert "seq 4 to 6" in done.stderr
    twice = meshd("log", "verify", whole, tail)
    assert (twice.exit_code, "come again after seq 6" in twice.stderr) == (1, True)
    assert "of west  -  " in twice.stdout
    assert "before seq 4 is not in it" in meshd("log", "cat", tail, "--state").stderr


def test_more_of_a_log_follows_and_a_gap_is_seen(
    meshd: Meshd, west: Log, lay: Lay, tmp_path: Path
) -> None:
    first, second, third = (str(tmp_path / name) for name in ("1", "2", "3"))
    meshd("log", "export", *ETCD, "-o", first)
    for target, start in ((second, 7), (third, 8)):
        record = west.append()
        lay(
            Put(SPACE.local.record(record.last_seq), record.raw),
            Put(SPACE.local.head, encode_local_head(LocalHead(west.head, {}))),
        )
        assert not meshd("log", "export", *ETCD, "--from", str(start), "-o", target).exit_code
    joined = meshd("log", "verify", first, second, third, "-o", "json")
    assert [row["verdict"] for row in orjson.loads(joined.stdout)] == ["ok"] * 3
    gap = meshd("log", "verify", first, third)
    assert (gap.exit_code, "seq 7 to 7 are missing" in gap.stderr) == (1, True)


def test_files_of_different_logs_are_told_apart(
    meshd: Meshd, west: Log, lay: Lay, tmp_path: Path
) -> None:
    first, second = str(tmp_path / "1"), str(tmp_path / "2")
    meshd("log", "export", *ETCD, "-o", first)
    other = log_of(1, log_id=OTHER_LOG_ID)
    lay(Delete(EXPORT.log, EXPORT.log_end))
    lay(Put(EXPORT.head, encode_head(other.head)), *records(EXPORT, other))
    assert not meshd("log", "export", *ETCD, "--log", "export/mesh", "-o", second).exit_code
    mixed = meshd("log", "verify", first, second)
    assert (mixed.exit_code, f"is of log {OTHER_LOG_ID}" in mixed.stderr) == (1, True)


def test_a_damaged_file_is_refused_with_its_place(meshd: Meshd, west: Log, tmp_path: Path) -> None:
    target = tmp_path / "a.log"
    meshd("log", "export", *ETCD, "-o", str(target))
    raw = target.read_bytes()
    for spoiled, reason in (
        (raw[:-1], "cut off"),
        (raw[:200] + bytes([raw[200] ^ 1]) + raw[201:], "offset"),
        (b"hello", "not an archive"),
        (b"", "not an archive"),
    ):
        target.write_bytes(spoiled)
        for command in ("verify", "cat"):
            failed = meshd("log", command, str(target))
            assert (failed.exit_code, reason in failed.stderr) == (1, True), failed.output


def test_a_damaged_etcd_is_refused_and_leaves_no_file(
    meshd: Meshd, west: Log, lay: Lay, tmp_path: Path
) -> None:
    lay(Delete(SPACE.local.record(3)))
    for command in (("verify",), ("cat",), ("export", "-o", str(tmp_path / "a.log"))):
        failed = meshd("log", *command, *ETCD)
        assert (failed.exit_code, "seq 3 to 3 are missing" in failed.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []
    lay(Put(SPACE.local.record(3), west.records[0].raw))
    assert "ends with seq 2" in meshd("log", "verify", *ETCD).stderr
    lay(Put(SPACE.local.record(3), west.records[1].raw), Delete(SPACE.local.record(6)))
    assert "local seq 4: is missing" in meshd("log", "verify", *ETCD).stderr


def test_a_head_that_is_not_the_last_record_is_seen(meshd: Meshd, west: Log, lay: Lay) -> None:
    lay(Put(EXPORT.head, encode_head(log_of(6).head)))
    failed = meshd("log", "verify", *ETCD, "--log", "export/mesh")
    assert (failed.exit_code, "not what its head says" in failed.stderr) == (1, True)


def test_what_can_not_be_done_is_said(meshd: Meshd, west: Log, lay: Lay, tmp_path: Path) -> None:
    target = tmp_path / "a.log"
    target.write_text("mine")
    there = meshd("log", "export", *ETCD, "-o", str(target))
    assert (there.exit_code, "--force" in there.stderr, target.read_text()) == (2, True, "mine")
    assert meshd("log", "export", *ETCD, "-o", str(target), "--force").exit_code == 0
    for arguments, status, reason in (
        (("export", *ETCD, "-o", str(tmp_path / "no" / "a")), 1, "No such file"),
        (("export", *ETCD, "--from", "7", "-o", str(tmp_path / "b")), 2, "ends with seq 6"),
        (("cat", *ETCD, "--log", "export/other"), 1, "has no log export/other"),
        (("cat", *ETCD, "--log", "replica/north"), 1, "has no log replica/north"),
        (("cat", *ETCD, "--log", "nonsense"), 2, "not the name of a log"),
        (("cat",), 2, "say what"),
        (("verify",), 2, "say what"),
        (("cat", str(tmp_path / "none")), 1, "No such file"),
        (("verify", str(tmp_path / "none")), 1, "No such file"),
    ):
        failed = meshd("log", *arguments)
        assert (failed.exit_code, reason in failed.stderr) == (status, True), failed.output
    lay(Delete(SPACE.descriptor))
    assert "no meshd cluster under /meshd/v1" in meshd("log", "cat", *ETCD).stderr


def test_a_long_export_tells_how_far_it_is(
    meshd: Meshd, west: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.cli.archiving.PROGRESS_EVENTS", 3)
    done = meshd("log", "export", *ETCD, "-o", str(tmp_path / "a.log"))
    assert "seq 3 of 6" in done.stderr


def test_who_reads_no_further_is_no_error_of_the_file(
    meshd: Meshd, west: Log, tmp_path: Path
) -> None:
    target = tmp_path / "a.log"
    meshd("log", "export", *ETCD, "-o", str(target))
    with pytest.raises(BrokenPipeError), opened(target):
        raise BrokenPipeError
    (tmp_path / "folder").mkdir()
    assert "Is a directory" in meshd("log", "cat", str(tmp_path / "folder")).stderr


BAD = Event("endpoint.set", "shop/web/bad", {"weight": 1 << 63}, "eve")


def lay_bad_replica(lay: Lay, *, is_skipped: bool) -> Log:
    """Lay a replica of east with a record that nobody can fold, in a west that passes over it."""
    theirs = log_of(1, log_id=OTHER_LOG_ID)
    bad = theirs.append(BAD)
    theirs.append()
    local = log_of(1)
    if is_skipped:
        record = {"seq": bad.first_seq, "hash": bad.hash.hex()}
        skip = {"log_id": OTHER_LOG_ID, "records": [record]}
        local.append(Event("skip.set", "east", skip, "ann"))
    peer = SPACE.replica(ClusterName("east"))
    lay(
        Put(SPACE.descriptor, encode_descriptor(Descriptor(WEST, 7, 1, 1, 5))),
        Put(SPACE.local.head, encode_local_head(LocalHead(local.head, {}))),
        Put(peer.cursor, encode_cursor(Cursor(theirs.head, Revision(3)))),
        *records(SPACE.local, local),
        *records(peer, theirs),
    )
    return theirs


def test_what_is_passed_over_of_a_replica_is_so_in_its_archive_too(
    meshd: Meshd, lay: Lay, tmp_path: Path
) -> None:
    theirs = lay_bad_replica(lay, is_skipped=True)
    target = str(tmp_path / "east.log")
    replica = (*ETCD, "--log", "replica/east")
    assert meshd("log", "export", *replica, "-o", target).exit_code == 0
    with opened(Path(target)) as reader:
        assert [entry.record for entry in reader.entries()] == theirs.records
    for source in ((target,), replica):
        assert meshd("log", "verify", *source).exit_code == 0
        shown = meshd("log", "cat", *source, "--state", "-o", "json")
        assert shown.exit_code == 0, shown.output
        state = orjson.loads(shown.stdout)
        assert state["service"]["shop/web"]["created_ms"] == 3
        assert state["endpoint"] == {}
        # As a log, it is shown as it is.
        assert "shop/web/bad" in meshd("log", "cat", *source).stdout


def test_what_a_cluster_passes_over_is_part_of_its_state(
    meshd: Meshd, lay: Lay, tmp_path: Path
) -> None:
    theirs = lay_bad_replica(lay, is_skipped=True)
    shown = meshd("log", "cat", *ETCD, "--state", "-o", "json")
    state = orjson.loads(shown.stdout)
    assert state["skip"]["east"]["log_id"] == theirs.head.log_id
    assert "peer" not in state


def test_what_nobody_said_to_pass_over_is_not(meshd: Meshd, lay: Lay, tmp_path: Path) -> None:
    lay_bad_replica(lay, is_skipped=False)
    target = str(tmp_path / "east.log")
    replica = (*ETCD, "--log", "replica/east")
    assert meshd("log", "export", *replica, "-o", target).exit_code == 0
    for source in ((target,), replica):
        checked = meshd("log", "verify", *source)
        assert checked.exit_code == 1
        assert "shop/web/bad" in checked.output
        assert meshd("log", "cat", *source, "--state").exit_code == 1


def test_a_local_log_that_cannot_be_folded_does_not_keep_a_replica_from_being_kept(
    meshd: Meshd, lay: Lay, tmp_path: Path
) -> None:
    lay_bad_replica(lay, is_skipped=True)
    lay(Put(SPACE.local.record(1), b"\xc1"))
    replica = (*ETCD, "--log", "replica/east")
    assert meshd("log", "export", *replica, "-o", str(tmp_path / "east.log")).exit_code == 0
    assert meshd("log", "verify", *replica).exit_code == 1
