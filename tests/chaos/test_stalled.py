"""What whoever recorded didn't see is no trouble of a cluster; what it saw is, as ever."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from chaos import journal
from chaos.evidence import Evidence, Spans
from chaos.history import Bounds, Completed, Invoked, Outcome, RunEnded, RunStarted, Stalled
from chaos.recorder import Recorder
from chaos.running.pulse import LATE_S, STACKS, pulse
from chaos.validators.isolation import i12_isolation
from chaos.validators.verdict import Status
from tests.chaos.doctoring import Doctor, Entries, changed, found
from tests.chaos.stories import kill_one, numbered
from tests.chaos.test_doctored import disturbed_ops, slow_commands, slow_stream

MS = 1_000_000
TIMEOUT_S = 10


def unanswered(entries: Entries) -> Entries:
    """A command of a without an answer for 90 ms while c is dead."""
    op = min(disturbed_ops(entries, "a"))
    index, done = found(entries, Completed, op=op)
    late = Completed(
        at_ns=done.at_ns + 90 * MS, op=op, outcome=Outcome.UNKNOWN, error="TimeoutError"
    )
    rest = [*entries[:index], *entries[index + 1 :], late]
    return numbered(sorted(rest, key=lambda one: one.at_ns))


def stalled(op: int, first_ms: int, last_ms: int) -> Doctor:
    """Whoever recorded stood still so long after a command was sent."""

    def doctor(entries: Entries) -> Entries:
        _, asked = found(entries, Invoked, op=op)
        from_ns, at_ns = asked.at_ns + first_ms * MS, asked.at_ns + last_ms * MS
        stall = Stalled(at_ns=at_ns, from_ns=from_ns)
        return numbered(sorted([*entries, stall], key=lambda one: one.at_ns))

    return doctor


def test_spans_know_how_much_of_a_time_is_theirs() -> None:
    spans = Spans([(10, 20), (15, 30), (50, 60)])
    assert [spans.within_ns(*span) for span in ((0, 5), (0, 15), (25, 55), (0, 100))] == [
        *(0, 5, 10, 30)
    ]


def test_who_got_no_answer_while_nobody_looked_is_not_judged() -> None:
    entries = unanswered(kill_one())
    op = min(disturbed_ops(entries, "a"))
    before = i12_isolation(Evidence(entries))
    assert before.status is Status.VIOLATED
    assert "came to unknown (TimeoutError)" in before.violations[0].reason
    stood_still = i12_isolation(Evidence(stalled(op, 20, 90)(entries)))
    assert stood_still.status is Status.HOLDS
    assert any("whoever recorded did nothing" in one for one in stood_still.missing)
    a_moment = i12_isolation(Evidence(stalled(op, 20, 40)(entries)))
    assert a_moment.status is Status.VIOLATED


def test_who_was_refused_was_refused_whoever_looked() -> None:
    entries = unanswered(kill_one())
    op = min(disturbed_ops(entries, "a"))
    refused = changed(Completed, -1, {"op": op}, outcome=Outcome.FAIL, status=503)(entries)
    verdict = i12_isolation(Evidence(stalled(op, 1, 90)(refused)))
    assert verdict.status is Status.VIOLATED


def test_what_took_long_while_nobody_looked_is_in_no_p99() -> None:
    for doctor in (slow_commands, slow_stream):
        entries = doctor(list(kill_one()))
        assert i12_isolation(Evidence(entries)).status is Status.VIOLATED
        start_ns = min(one.at_ns for one in entries if isinstance(one, Invoked) and one.op >= 60)
        stall = Stalled(at_ns=entries[-1].at_ns, from_ns=start_ns)
        verdict = i12_isolation(Evidence(numbered([*entries, stall])))
        assert verdict.status is not Status.VIOLATED
        assert any("disturbed samples" in one for one in verdict.missing)


async def test_the_history_says_when_the_event_loop_stood_still(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    header = RunStarted(
        at_ns=0, seed=1, scenario="s", versions={}, clusters=("a",), bounds=Bounds()
    )
    with journal.Writer(path) as writer:
        recorder = Recorder(writer)
        recorder.note(header)
        async with pulse(recorder, tmp_path), asyncio.timeout(TIMEOUT_S):
            await asyncio.sleep(0)  # It beats.
            _stand_still()
            while not Evidence(journal.read(path).entries).all(Stalled):  # noqa: ASYNC110 a file
                await asyncio.sleep(0.01)
        recorder.note(RunEnded(at_ns=recorder.now_ns()))
    stalls = Evidence(journal.read(path).entries).all(Stalled)
    assert all(one.at_ns - one.from_ns > LATE_S * 1000 * MS for one in stalls)
    assert "_stand_still" in (tmp_path / STACKS).read_text()


def _stand_still() -> None:
    time.sleep(LATE_S * 4)
