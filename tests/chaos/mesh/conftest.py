"""What tests of meshes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def _unmeasured() -> Iterator[None]:
    """Daemons run as people run them, and not under coverage, as in tests/e2e."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield
