"""What the tests of the HTTP edge share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.edges.http.served import Served, serve_cluster


@pytest.fixture
async def east() -> AsyncIterator[Served]:
    """One cluster, alone."""
    async with serve_cluster() as served:
        yield served
