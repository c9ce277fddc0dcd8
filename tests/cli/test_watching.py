"""What `meshd watch` prints of each message."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from meshd.cli.output import Output
from meshd.cli.watching import print_message
from meshd.client import ConditionMessage, MeshSeen, PeerGone, PeerSeen, StatusSeen

STATUS: Any = {
    "cluster": "east",
    "ready": False,
    "reasons": ["not yet", "nor later"],
    "leader": None,
    "digest": None,
    "vector_text": "",
    "events_after": "",
}
PEER: Any = {
    "name": "west",
    "phase": "Lost",
    "since": "2026-11-28T12:00:00.000Z",
    "standing": "demoted",
    "seq": None,
    "lag_events": None,
    "unfresh_s": 12.5,
    "reason": "no answer\x1b[2J",
}
LOST = "west  Lost since 2026-11-28T12:00:00.000Z  demoted  seq 0  lag - events, 12.5 s  no answer"


@pytest.mark.parametrize(
    ("message", "lines", "data"),
    [
        (
            MeshSeen(STATUS | {"ready": True, "leader": {"self": False, "host": "vm-7"}}, [PEER]),
            ["east  ready  led by vm-7  digest -  at ", LOST],
            ["status", "peers"],
        ),
        (StatusSeen(STATUS), ["east  not yet; nor later  led by nobody"], ["status"]),
        (PeerSeen(PEER), [LOST], ["peer"]),
        (PeerGone("west"), ["west  removed"], ["removed"]),
    ],
)
def test_each_message_is_lines_for_people_and_data_for_pipes(
    message: ConditionMessage,
    lines: list[str],
    data: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_message(message, Output.TABLE)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    for line, start in zip(printed.splitlines(), lines, strict=True):
        assert line.startswith(start)
    print_message(message, Output.JSON)
    assert list(orjson.loads(capsys.readouterr().out)) == data
    print_message(message, Output.YAML)
    assert capsys.readouterr().out.startswith("---\n")
