"""Whether an endpoint may take traffic, and if not, why.

For: the reasons that lie in the endpoint itself. Not for: what its cluster's liveness does to it
(`backend.under`). Invariant: an endpoint that is left out has exactly one reason, the first that
holds in the order below, so that every cluster names the same one.
"""

from __future__ import annotations

from meshd.model.endpoint import Endpoint
from meshd.model.table import Reason


def reason_out(endpoint: Endpoint) -> Reason | None:
    """Why this endpoint is out of its service; None means that it is in."""
    if endpoint.terminating:
        return Reason.TERMINATING
    if not endpoint.ready:
        return Reason.NOT_READY
    if endpoint.weight == 0:
        return Reason.DRAINING
    return None
