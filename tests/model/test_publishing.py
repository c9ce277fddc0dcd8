import pytest

from meshd.model.errors import CorruptError
from meshd.model.ids import ClusterName, LogId, Seq
from meshd.model.publishing import PublishCursor, decode_publish_cursor

LOG = LogId("a" * 32)
CURSOR = PublishCursor(LOG, Seq(7))


def test_a_cursor_is_read_as_it_was_written() -> None:
    assert decode_publish_cursor(CURSOR.encode(), "x") == CURSOR
    assert str(CURSOR.at(ClusterName("east"))) == f"east:{LOG}:7"


def test_members_of_later_versions_are_passed_over() -> None:
    raw = CURSOR.encode().replace(b"{", b'{"more":1,', 1)
    assert decode_publish_cursor(raw, "x") == CURSOR


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (CURSOR.encode().replace(b":1,", b":2,"), "version 2; this meshd knows 1"),
        (CURSOR.encode().replace(b":1,", b":null,"), "version None"),
        (CURSOR.encode().replace(b"a" * 32, b"a"), "is not a log id"),
        (CURSOR.encode().replace(b'"aaaa', b'5,"x":"'), "5 is not a log id"),
        (CURSOR.encode().replace(b"7", b"-7"), "seq -7 is not a number from 0"),
    ],
)
def test_what_is_no_cursor_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(CorruptError, match=reason):
        decode_publish_cursor(raw, "the key")
