"""Who may say what of an endpoint: a registration, or everybody else.

For: keeping the two from taking each other's endpoints over. Not for: owners among manifests
(`ownership`), nor whether a registration lives (`runtime.registrations`). Invariants: an endpoint's
source tells which of the two it is; neither changes or removes the other's; what changes nothing
is refused to nobody.

Rules:
- Who came first has the name. A registration of a name that a manifest or a request gave is
  refused, and so is the other way round while the registration lives.
- A service that is removed takes registered endpoints along like all others: whoever renews one is
  told that it is gone, and registers it anew.
- No manifest prunes a registered endpoint, whoever its label says that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshd.model.endpoint import Endpoint
from meshd.model.errors import Problem
from meshd.model.ids import EndpointKey
from meshd.model.registration import REGISTRATION_SOURCE


def is_registered(endpoint: Endpoint | None) -> bool:
    """Whether an endpoint is there by a registration."""
    return endpoint is not None and endpoint.source == REGISTRATION_SOURCE


def hindrances(
    key: EndpointKey, known: Endpoint | None, wanted: Endpoint | None
) -> Iterator[Problem]:
    """Why somebody who registers nothing may not change an endpoint so. wanted: None to remove."""
    if is_registered(known):
        yield Problem(
            f"endpoint {key}",
            "is registered with a time to live, by whoever renews it",
            f"use another name, or deregister it: DELETE /v1/registrations/{key}",
        )
    elif is_registered(wanted):
        yield from reserved(f"endpoint {key}", REGISTRATION_SOURCE)


def reserved(where: str, source: str) -> Iterator[Problem]:
    """Why nobody may call themselves a registration."""
    if source == REGISTRATION_SOURCE:
        yield Problem(
            where,
            f"the source {REGISTRATION_SOURCE} is that of registrations",
            "leave `source` out, or register the endpoint: PUT /v1/registrations/…",
        )


def taken(key: EndpointKey, known: Endpoint | None) -> Iterator[Problem]:
    """Why a name can't be registered."""
    if known is not None and not is_registered(known):
        whose = f" by {known.source}" if known.source else ""
        yield Problem(
            f"endpoint {key}",
            f"is set{whose}, and not by a registration",
            "register it by another name, or remove that endpoint first",
        )
