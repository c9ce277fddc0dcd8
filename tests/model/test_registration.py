"""Registrations: their key's bytes, and what is sent to make one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.errors import CorruptError, RejectedError
from meshd.model.registration import (
    RENEWALS_MAX,
    TTL_S_MAX,
    TTL_S_MIN,
    Registering,
    Registration,
    Renewing,
)
from meshd.model.schema import from_data

TIMES = st.integers(0, 1 << 53)
TEXTS = st.text(max_size=100)


@given(st.builds(Registration, TIMES, TEXTS, TEXTS, TIMES))
def test_a_registration_is_read_as_it_was_written(value: Registration) -> None:
    assert Registration.decode(value.encode(), "here") == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"ttl_s":-1,"since_ms":1,"holder":"","actor":""}',
        b'{"ttl_s":1,"holder":"","actor":""}',
        b'{"ttl_s":1,"since_ms":1,"holder":7,"actor":""}',
        b'{"ttl_s":1,"since_ms":1,"holder":""}',
    ],
)
def test_what_is_none_is_named(raw: bytes) -> None:
    with pytest.raises(CorruptError, match="here"):
        Registration.decode(raw, "here")


ENDPOINT = {"address": "10.0.0.1"}


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"endpoint": ENDPOINT, "ttl_s": TTL_S_MIN - 1}, "ttl_s"),
        ({"endpoint": ENDPOINT, "ttl_s": TTL_S_MAX + 1}, "ttl_s"),
        ({"endpoint": ENDPOINT, "ttl_s": 2.5}, "ttl_s"),
        ({"endpoint": ENDPOINT, "holder": "a b"}, "holder"),
        ({"endpoint": {"address": "here"}}, "endpoint.address"),
        ({"ttl_s": 10}, "endpoint"),
    ],
)
def test_a_wrong_registration_is_refused(data: dict[str, object], where: str) -> None:
    with pytest.raises(RejectedError) as caught:
        from_data(Registering, data, "")
    assert [problem.where for problem in caught.value.problems] == [where]


def test_so_many_are_renewed_at_once_and_no_more() -> None:
    assert len(from_data(Renewing, {"names": ["a/b/c"] * RENEWALS_MAX}, "").names) == RENEWALS_MAX
    with pytest.raises(RejectedError):
        from_data(Renewing, {"names": ["a/b/c"] * (RENEWALS_MAX + 1)}, "")
