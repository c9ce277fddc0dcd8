"""Names and positions: what is one, what isn't, and that text and value are the same thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.errors import RejectedError
from meshd.model.ids import (
    GENESIS_HASH,
    ClusterName,
    EndpointKey,
    Head,
    LogId,
    Position,
    Seq,
    ServiceKey,
    format_vector,
    is_cluster_name,
    is_dns_label,
    is_dns_name,
    is_log_id,
    parse_vector,
)

LOG_ID = LogId("0123456789abcdef" * 2)

NOT_EVEN_A_LABEL = ["", "-a", "a-", "A", "a_b", "a/b", "a b", "a\n", "a\x00", "ä", ".", "..", "a:b"]


@pytest.mark.parametrize(
    ("text", "is_label", "is_name"),
    [
        ("a", True, True),
        ("0", True, True),
        ("my-service-1", True, True),
        ("a" * 63, True, True),
        ("a" * 64, False, True),
        ("web-0.web.shop", False, True),
        ("a" * 253, False, True),
        ("a" * 254, False, False),
        ("a..b", False, False),
        ("a.-b", False, False),
        ("a-.b", False, False),
        (".a", False, False),
        ("a.", False, False),
        *((text, False, False) for text in NOT_EVEN_A_LABEL),
    ],
)
def test_dns_labels_and_names(text: str, *, is_label: bool, is_name: bool) -> None:
    assert is_dns_label(text) is is_label
    assert is_dns_name(text) is is_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("west", True),
        ("eu-central-1", True),
        ("a" * 32, True),
        ("a" * 33, False),
        ("a.b", False),
        *((text, False) for text in NOT_EVEN_A_LABEL),
    ],
)
def test_cluster_names(text: str, *, expected: bool) -> None:
    assert is_cluster_name(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0" * 32, True),
        (LOG_ID, True),
        ("0" * 31, False),
        ("0" * 33, False),
        ("A" * 32, False),
        ("g" * 32, False),
        ("0" * 31 + "\n", False),
        ("", False),
    ],
)
def test_log_ids(text: str, *, expected: bool) -> None:
    assert is_log_id(text) is expected


def test_a_service_key_is_its_text() -> None:
    assert ServiceKey.parse("shop/web") == ServiceKey("shop", "web")
    assert str(ServiceKey("shop", "web")) == "shop/web"


@pytest.mark.parametrize("text", ["", "web", "/web", "shop/", "shop/web/a", "shop/we.b", "../web"])
def test_what_is_no_service_key(text: str) -> None:
    with pytest.raises(RejectedError, match="write namespace/name"):
        ServiceKey.parse(text)


def test_an_endpoint_key_is_its_text() -> None:
    key = EndpointKey(ServiceKey("shop", "web"), "web-0.web")
    assert EndpointKey.parse("shop/web/web-0.web") == key
    assert str(key) == "shop/web/web-0.web"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write namespace/service/name"),
        ("web-0", "write namespace/service/name"),
        ("shop/web/", "write namespace/service/name"),
        ("shop/web/..", "write namespace/service/name"),
        ("web/web-0", "write namespace/name"),
        ("shop/web/a/b", "write namespace/name"),
    ],
)
def test_what_is_no_endpoint_key(text: str, said: str) -> None:
    with pytest.raises(RejectedError, match=said):
        EndpointKey.parse(text)


def test_a_log_begins_at_genesis() -> None:
    assert Head.genesis(LOG_ID) == Head(LOG_ID, Seq(0), GENESIS_HASH)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "west",
        f"west:{LOG_ID}",
        f"west:{LOG_ID}:1:2",
        f"WEST:{LOG_ID}:1",
        f"west:{LOG_ID[1:]}:1",
        f"west:{LOG_ID}:-1",
        f"west:{LOG_ID}:1e3",
        f"west:{LOG_ID}:",
        f"west:{LOG_ID}:٣",
        f"west:{LOG_ID}:{'9' * 20}",
    ],
)
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(RejectedError, match="write cluster:log-id:seq"):
        Position.parse(text)


positions = st.builds(
    Position,
    st.sampled_from(("east", "west", "eu-1")).map(ClusterName),
    st.integers(0, 2**128 - 1).map(lambda number: LogId(f"{number:032x}")),
    st.integers(0, 2**63 - 1).map(Seq),
)


@given(positions)
def test_a_position_is_its_text(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(st.lists(positions, unique_by=lambda position: position.cluster))
def test_a_vector_is_its_text_in_any_order(found: list[Position]) -> None:
    vector = {position.cluster: position for position in found}
    backwards = {position.cluster: position for position in reversed(found)}
    assert parse_vector(format_vector(vector)) == vector
    assert format_vector(vector) == format_vector(backwards)


def test_a_vector_names_no_cluster_twice() -> None:
    with pytest.raises(RejectedError, match="names a cluster twice"):
        parse_vector(f"west:{LOG_ID}:1,west:{LOG_ID}:2")


def test_a_vector_is_positions_and_nothing_else() -> None:
    with pytest.raises(RejectedError, match="is not a position"):
        parse_vector(f"west:{LOG_ID}:1,")
