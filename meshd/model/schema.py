"""Plain data to values and back: the checks that `service` and `listed` declare.

For: REST bodies, manifests and events' data, which all go through here. Not for: rules that need
the rest of the state (`core.decide`). Invariant: what `to_data` wrote, `from_data` reads as an
equal value, and defaults are left out, so they may never change within a protocol version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.errors import Problem, RejectedError, shortened, shown
from meshd.model.forms import PLACE_PATTERN, PRINTABLE_PATTERN
from meshd.model.identity import Identity
from meshd.model.ids import CLUSTER_NAME_PATTERN, DNS_LABEL_PATTERN
from meshd.model.listed import (
    ADDRESS_PATTERN,
    FILE_PATTERN,
    PREFIX_PATTERN,
    RANGE_PATTERN,
    ListedPeer,
    Skip,
)
from meshd.model.node import Node
from meshd.model.operation import DrainPlan, Measured, MigrationPlan, Operation
from meshd.model.policy import METHOD_PATTERN, PATH_PATTERN, PORT_NAME_PATTERN, Policy
from meshd.model.registration import HOLDER_PATTERN, Registering, Renewing
from meshd.model.service import MEMBER_PATTERN, Service

Value = Service | Endpoint | ClusterInfo | Node | Identity | Policy | ListedPeer | Skip | Operation
Asked = Registering | Renewing | MigrationPlan | DrainPlan | Measured
"""Bodies of requests that are no value of an event."""
T = TypeVar(
    "T",
    Service,
    Endpoint,
    ClusterInfo,
    Node,
    Identity,
    Policy,
    ListedPeer,
    Skip,
    Operation,
    Registering,
    Renewing,
    MigrationPlan,
    DrainPlan,
    Measured,
)

_ADAPTERS: Mapping[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (*get_args(Value), *get_args(Asked))
}

UnknownFields = Literal["forbid", "ignore"]
"""People's input with an unknown field is a mistake; a newer writer's event with one is not."""


def from_data(kind: type[T], data: object, where: str, unknown: UnknownFields = "forbid") -> T:
    """Check plain data and make it a value; raises RejectedError with all problems at once, or, of
    a great many, with the first.
    """
    try:
        value: T = _ADAPTERS[kind].validate_python(data, extra=unknown)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [problem_of(detail, where) for detail in details[:PROBLEMS_MAX]]
        if len(details) > PROBLEMS_MAX:
            problems.append(Problem(where, f"and {len(details) - PROBLEMS_MAX} problems more"))
        raise RejectedError(tuple(problems)) from None
    return value


def to_data(value: Value) -> dict[str, object]:
    """The value as plain data, without what is at its default."""
    data: dict[str, object] = _ADAPTERS[type(value)].dump_python(
        value, by_alias=True, exclude_defaults=True, mode="json"
    )
    return data


def all_data(value: Value) -> dict[str, object]:
    """The value as plain data, with what is at its default."""
    data: dict[str, object] = _ADAPTERS[type(value)].dump_python(value, by_alias=True, mode="json")
    return data


def field_names(kind: type[Value]) -> tuple[str, ...]:
    """What the fields of a value are called in plain data."""
    return tuple(json_schema(kind)["properties"])


def json_schema(kind: type[Value | Asked]) -> dict[str, Any]:
    """The JSON Schema of a value, for `protocols/`."""
    return _ADAPTERS[kind].json_schema(by_alias=True)


def problem_of(detail: ErrorDetails, where: str) -> Problem:
    """One of pydantic's findings in our words: a path, what is wrong, what to do."""
    path = where
    for step in detail["loc"]:
        name = shortened(str(step))
        path += f"[{step}]" if isinstance(step, int) else f".{name}" if path else name
    match detail["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            return Problem(path, "unknown field", "remove it or check its spelling")
        case "missing" | "missing_argument":
            return Problem(path, "is missing", "add it")
        case "string_pattern_mismatch":
            form = _FORMS.get(detail.get("ctx", {}).get("pattern", ""), "is not well-formed")
            return Problem(path, f"{form}; it is {shown(detail['input'])}")
        case "dataclass_type" | "dict_type" | "mapping_type":
            what = f"is not a map, but {shown(detail['input'])}"
            return Problem(path, what, "write a map of its fields")
        case "tuple_type" | "list_type" | "frozen_set_type":
            return Problem(path, f"is not a list, but {shown(detail['input'])}", "write a list")
        case _:
            what = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return Problem(path, f"{what[:1].lower()}{what[1:]}; it is {shown(detail['input'])}")


_FORMS: Mapping[str, str] = {
    rf"^$|{DNS_LABEL_PATTERN}": "is not a DNS label (a-z, 0-9, '-' inside, at most 63 characters)",
    CLUSTER_NAME_PATTERN: "is not a cluster name (a-z, 0-9, '-' inside, at most 32 characters)",
    PLACE_PATTERN: "may hold A-Z, a-z, 0-9, '.', '_' and '-' only",
    PRINTABLE_PATTERN: "holds a control character",
    MEMBER_PATTERN: "is not the name of a cluster, @local or *",
    DNS_LABEL_PATTERN: "is not a DNS label (a-z, 0-9, '-' inside, at most 63 characters)",
    ADDRESS_PATTERN: "is not host:port",
    FILE_PATTERN: "is not an absolute path on meshd's host",
    PREFIX_PATTERN: "is not a prefix: write it like /meshd/v1, without a slash at its end",
    HOLDER_PATTERN: "is not at most 128 printable ASCII characters without space",
    METHOD_PATTERN: "is not an HTTP method in capital letters, like GET",
    PATH_PATTERN: "is not a path: begin it with a slash",
    PORT_NAME_PATTERN: "is not a port's name (a-z, 0-9, '-' inside, at most 63 characters)",
    RANGE_PATTERN: "is not an address range: write it like 10.1.0.0/16",
}
"""What a pattern asks for, in words."""


PROBLEMS_MAX = 100
"""More at once help nobody, and a peer could make a reason of megabytes of them."""
