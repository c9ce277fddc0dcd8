"""What a reader may see, whatever it asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.permit import Permit
from meshd.model.keyspace import Keyspace, prefix_end

KEYS = Keyspace()
MESH = KEYS.export("mesh")
PERMIT = Permit(KEYS, "mesh")
NEAR = (
    *(KEYS.descriptor, MESH.root, MESH.head, MESH.log, MESH.log_end, MESH.record(7)),
    *(prefix_end(MESH.root), KEYS.local.head, KEYS.export("mesh2").root, KEYS.export("mes").head),
    *(b"", b"\x00", b"\xff", b"/", b"/meshd/v1/export/"),
)
"""Keys at the borders, which chance alone would never find."""


@st.composite
def keys(draw: st.DrawFn) -> bytes:
    """A key that is, or is near to, one that matters."""
    base = draw(st.sampled_from(NEAR))
    cut = draw(st.integers(0, 2))
    return base[: len(base) - cut] + draw(st.binary(max_size=3))


@given(key=keys(), end=keys(), seen=keys())
def test_whatever_is_permitted_lies_within(key: bytes, end: bytes, seen: bytes) -> None:
    if not PERMIT.covers(key, end):
        return
    is_seen = seen == key if not end else seen >= key and (end == b"\x00" or seen < end)
    if is_seen:
        assert seen == KEYS.descriptor or seen.startswith(MESH.root)


@given(tail=st.binary(max_size=8), other=st.binary(max_size=8))
def test_all_of_the_audience_is_permitted(tail: bytes, other: bytes) -> None:
    first, last = sorted((MESH.root + tail, MESH.root + other))
    assert PERMIT.covers(first)
    assert PERMIT.covers(first, last) == (first < last)
    assert PERMIT.covers(first, prefix_end(MESH.root))


@pytest.mark.parametrize(
    ("key", "end", "is_covered"),
    [
        (KEYS.descriptor, b"", True),
        (KEYS.descriptor, KEYS.descriptor + b"\x00", False),
        (KEYS.descriptor, b"\x00", False),
        (MESH.head, MESH.log_end, True),
        (MESH.root, prefix_end(MESH.root), True),
        (MESH.root, prefix_end(MESH.root) + b"\x00", False),
        (MESH.root, b"\x00", False),
        (MESH.root[:-1], MESH.log_end, False),
        (prefix_end(MESH.root), prefix_end(MESH.root) + b"\x00", False),
        (MESH.log, MESH.head, False),
        (b"", b"", False),
        (b"\x00", b"\x00", False),
        (KEYS.export("mesh2").head, b"", False),
        (KEYS.local.head, b"", False),
    ],
)
def test_the_borders(key: bytes, end: bytes, *, is_covered: bool) -> None:
    assert PERMIT.covers(key, end) is is_covered
