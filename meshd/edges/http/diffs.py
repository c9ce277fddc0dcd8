"""Differences of tables as JSON objects, as `protocols/openapi.json` describes them.

For: the shapes of a plan's effects. Not for: how tables differ (`core.table_diff`). Invariant:
pure; values look as they do in `/v1/tables`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from meshd.core.table_diff import BackendDiff, FieldChange
from meshd.core.what_if import Effect, ServiceEffect
from meshd.edges.http.wire import Json, weight_number
from meshd.model.ids import ServiceKey
from meshd.model.table import TierShare


def effect_item(effect: Effect) -> Json:
    """What becomes of one cluster's table."""
    services = [_service_item(service) for service in effect.services]
    return {"perspective": effect.perspective, "services": services}


def emptied_items(effect: Effect) -> Iterator[Json]:
    """The services that would be left without any backend that is in."""
    for service in effect.services:
        if service.is_emptied:
            yield {
                "perspective": effect.perspective,
                **_names(service.diff.key),
                "eligible_before": service.eligible_before,
            }


def _service_item(service: ServiceEffect) -> Json:
    diff = service.diff
    return {
        **_names(diff.key),
        "change": diff.kind,
        "eligible_before": service.eligible_before,
        "eligible_after": service.eligible_after,
        "fields": fields_shown(diff.fields),
        "backends": [_backend_item(backend) for backend in diff.backends],
        "backends_omitted": service.omitted,
    }


def _backend_item(backend: BackendDiff) -> Json:
    return {
        "cluster": backend.cluster,
        "name": backend.name,
        "change": backend.kind,
        "fields": fields_shown(backend.fields),
    }


def _names(key: ServiceKey) -> Json:
    return {"namespace": key.namespace, "name": key.name}


def fields_shown(changes: Sequence[FieldChange]) -> list[Json]:
    """Fields that differ, with values as they look in `/v1/tables`."""
    return [
        {
            "path": change.path,
            "old": _shown(change.path, change.old),
            "new": _shown(change.path, change.new),
        }
        for change in changes
    ]


def _shown(path: str, value: object) -> object:
    match value:
        case TierShare():
            return asdict(value) | {"weight": weight_number(value.weight)}
        case Mapping():
            return dict(value)
        case tuple():
            return [_shown(path, item) for item in value]
        case int() if path.rpartition(".")[2] == "weight":
            return weight_number(value)
        case _:
            # orjson knows dataclasses: their fields are the names that JSON has.
            return value
