"""Whether an endpoint may take traffic, and if not, why.

For: the reasons that lie in the endpoint itself, behind those that lie in its cluster. Not for:
what its cluster's liveness does to it (`backend.under`). Invariant: an endpoint that is left out
has exactly one reason, the first that holds in the order of `Reason`, so that every cluster names
the same one.
"""

from __future__ import annotations

from meshd.core.terms import Terms
from meshd.model.endpoint import Endpoint
from meshd.model.probe import ProbeResult
from meshd.model.table import Reason


def reason_out(endpoint: Endpoint, terms: Terms, *, has_port: bool) -> Reason | None:
    """Why this endpoint is out of its service; None means that it is in."""
    if terms.reason is not None:
        return terms.reason
    if not has_port:
        return Reason.NO_MATCHING_PORT
    if endpoint.terminating:
        return Reason.TERMINATING
    if not endpoint.ready:
        return Reason.NOT_READY
    if endpoint.probed is ProbeResult.FAILING:
        return Reason.PROBE_FAILING
    if endpoint.probed is ProbeResult.FLAPPING:
        return Reason.FLAPPING
    if not (endpoint.weight and endpoint.turned_percent and terms.factor):
        return Reason.DRAINING
    return None
