"""What meshd serves, as histories have it."""

from __future__ import annotations

from chaos import reference
from chaos.history import Row
from meshd.core.telling import port_fields, weight_number
from meshd.model.table import GlobalService


def rows_of(service: GlobalService) -> tuple[Row, ...]:
    """The backends of a service, as REST tells them."""
    return tuple(
        Row(
            backend.cluster,
            backend.name,
            backend.address,
            ",".join(sorted(reference.port_text(port_fields(port)) for port in backend.ports)),
            backend.priority,
            weight_number(backend.weight),
            str(backend.reason or ""),
        )
        for backend in service.backends
    )
