"""Entries stand where they began, though it is known later what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos import journal
from chaos.history import Bounds, Change, Entry, FaultInjected, Process, RunEnded, RunStarted
from chaos.running import held
from chaos.running.held import HeldWriter

HEADER = RunStarted(at_ns=1, seed=1, scenario="s", versions={}, clusters=("east",), bounds=Bounds())


def process(at_ns: int) -> Process:
    return Process(at_ns=at_ns, process="p", cluster="east", pid=at_ns, change=Change.STARTED)


def fault(at_ns: int, number: int) -> FaultInjected:
    return FaultInjected(at_ns=at_ns, fault_id=number, fault="f", clusters=("east",))


def test_what_is_written_meanwhile_stands_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HeldWriter(path) as writer:
        header = writer.take(1)
        writer.write(process(2))
        writer.fill(header, HEADER)
        first, second = writer.take(3), writer.take(4)
        writer.write(process(5))
        # The second is known before the first, and waits for it.
        writer.fill(second, fault(4, 2))
        assert len(path.read_bytes().splitlines()) == 2
        writer.write(process(6))
        writer.fill(first, fault(3, 1))
        writer.write(RunEnded(at_ns=7))
    entries = journal.read(path).entries
    assert [entry.at_ns for entry in entries] == [1, 2, 3, 4, 5, 6, 7]
    assert [entry.fault_id for entry in entries if isinstance(entry, FaultInjected)] == [1, 2]


def test_an_entry_that_is_late_is_refused_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HeldWriter(path) as writer:
        writer.write(HEADER)
        place = writer.take(2)
        writer.write(process(5))
        with pytest.raises(journal.JournalError, match="1 ns late"):
            writer.write(process(4))
        with pytest.raises(ValueError, match="of 3 ns in the place of one of 2"):
            writer.fill(place, fault(3, 1))
        writer.fill(place, fault(2, 1))
    assert [entry.at_ns for entry in journal.read(path).entries] == [1, 2, 5]


def test_what_waits_is_encoded_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of entries at once would keep the process that measures from everything else."""
    with HeldWriter(tmp_path / "history.jsonl") as writer:
        writer.write(HEADER)
        place = writer.take(2)
        for number in range(100):
            writer.write(process(3 + number))
        encoded: list[str] = []
        encode = journal.encode

        def seen(entry: Entry) -> bytes:
            encoded.append(entry.KIND)
            return encode(entry)

        monkeypatch.setattr(journal, "encode", seen)
        writer.fill(place, fault(2, 1))
    assert encoded == ["fault-injected"]
    assert len(journal.read(tmp_path / "history.jsonl").entries) == 102


def test_what_waited_is_written_bit_by_bit_and_all_of_it_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "AT_ONCE_BYTES", 1000)
    path = tmp_path / "history.jsonl"
    with HeldWriter(path) as writer:
        writer.write(HEADER)
        place = writer.take(2)
        for number in range(100):
            writer.write(process(3 + number))
        before_bytes = path.stat().st_size
        writer.fill(place, fault(2, 1))
        filled_bytes = path.stat().st_size
        assert 0 < filled_bytes - before_bytes < 1300
        writer.write(process(200))
        assert 0 < path.stat().st_size - filled_bytes < 1300
    assert [entry.at_ns for entry in journal.read(path).entries] == [*range(1, 103), 200]


def test_more_than_memory_should_hold_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HeldWriter(tmp_path / "history.jsonl") as writer:
        writer.write(HEADER)
        writer.take(2)
        writer.write(process(3))
        monkeypatch.setattr(held, "WAITING_BYTES_MAX", 100)
        with pytest.raises(RuntimeError, match="100 bytes wait"):
            writer.write(process(4))
