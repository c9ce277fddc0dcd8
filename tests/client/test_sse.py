from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.client.sse import EVENT_BYTES_MAX, SseParser, StreamEvent

STREAM = (
    b": hello\nretry: 20\nid: a:1\n\n"
    b'id: a:2\nevent: io.meshd.service.set\ndata: {"x":\ndata:  1}\n\n'
    b":\r\n\r\nid: a:3\r\ndata\r\n\r\ndata:no id\r\rfuture: x\nretry: soon\ndata: \xc3\xa9\n\n"
    b"data: never finished\n"
)
EVENTS = [
    StreamEvent("a:2", "io.meshd.service.set", '{"x":\n 1}'),
    StreamEvent("a:3", "message", ""),
    StreamEvent("a:3", "message", "no id"),
    StreamEvent("a:3", "message", "é"),
]


def test_reads_events() -> None:
    parser = SseParser()
    assert parser.feed(STREAM) == EVENTS
    assert parser.retry_ms == 20
    assert parser.last_id == "a:3"
    assert EVENTS[0].json() == {"x": 1}


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    parser, found = SseParser(), []
    places = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(places):
        found += parser.feed(STREAM[start:end])
    assert found == EVENTS


def test_an_id_counts_only_once_its_event_is_whole() -> None:
    parser = SseParser("a:1")
    assert parser.feed(b"id: a:2\ndata: x\n") == []
    assert parser.last_id == "a:1"
    again = parser.resumed()
    assert again.last_id == "a:1"
    assert again.feed(b"\ndata: y\n\n") == [StreamEvent("a:1", "message", "y")]


def test_an_id_with_nul_is_no_id() -> None:
    parser = SseParser("a:1")
    assert parser.feed(b"id: a:2\0\ndata: x\n\n") == [StreamEvent("a:1", "message", "x")]


@pytest.mark.parametrize("chunk", [b"x" * 4096, b"data: " + b"x" * 4000 + b"\n"])
def test_what_never_ends_is_refused(chunk: bytes) -> None:
    parser = SseParser()
    for _ in range(EVENT_BYTES_MAX // 4096 - 1):
        parser.feed(chunk)
    with pytest.raises(ValueError, match="bytes"):
        parser.feed(chunk * 20)
