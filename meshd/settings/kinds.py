"""Kinds of values in settings: how each is checked.

For: the annotations that `subjects` declares fields with. Not for: the fields, nor rules between
them. Invariant: a value that is wrong raises ValueError in words that a person can act on.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    Strict,
)

from meshd.core.claims import Range
from meshd.model.forms import AUDIENCES_MAX, sorted_once
from meshd.model.ids import CLUSTER_NAME_CHARS_MAX, ClusterName, is_cluster_name, is_dns_label
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.settings.hostport import HostPort

PREFIX_CHARS_MAX = 128
HOST_CHARS_MAX = 253
NO_SECRET = SecretStr("")
CLIENT_ID_CHARS_MAX = 128

_PREFIX = re.compile(r"(/[A-Za-z0-9._-]+)+\Z")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")
_TOPIC = re.compile(r"[A-Za-z0-9._~:-]+(/[A-Za-z0-9._~:-]+)*\Z")
_CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]*\Z")
_HOST = re.compile(r"[A-Za-z0-9._:-]*\Z")


def _name(text: str) -> ClusterName:
    if not is_cluster_name(text):
        raise ValueError(
            f"is not a cluster name: a-z, 0-9 and '-' inside, at most {CLUSTER_NAME_CHARS_MAX}"
        )
    return ClusterName(text)


def _audience(text: str) -> str:
    if not is_dns_label(text):
        raise ValueError("is not an audience's name: a-z, 0-9 and '-' inside, at most 63")
    return text


def _export_logs(names: tuple[str, ...]) -> tuple[str, ...]:
    if DEFAULT_AUDIENCE in names:
        raise ValueError(f"names {DEFAULT_AUDIENCE}, which is always written; leave it out")
    if len(names) >= AUDIENCES_MAX:
        raise ValueError(f"has {len(names)} audiences; at most {AUDIENCES_MAX - 1}")
    return sorted_once(names)


def _user(text: str) -> str:
    if not _USER.match(text):
        raise ValueError("is not a user's name: letters, digits, '.', '_', '-'; at most 253")
    return text


def _prefix(text: str) -> str:
    if not _PREFIX.match(text) or len(text) > PREFIX_CHARS_MAX:
        raise ValueError("is not a prefix: write it like /meshd/v1, without a slash at its end")
    return text


def _topic_prefix(text: str) -> str:
    if not _TOPIC.match(text) or len(text) > PREFIX_CHARS_MAX:
        raise ValueError(
            "is not the beginning of a topic: write it like meshd or site/meshd, without '+', '#',"
            f" '$', '%' and outer slashes, at most {PREFIX_CHARS_MAX} characters"
        )
    return text


def _client_id(text: str) -> str:
    if not _CLIENT_ID.match(text) or len(text) > CLIENT_ID_CHARS_MAX:
        raise ValueError(
            "is not a client id: letters, digits, '.', '_', ':', '-'; at most"
            f" {CLIENT_ID_CHARS_MAX}"
        )
    return text


def _host(text: str) -> str:
    if not _HOST.match(text) or len(text) > HOST_CHARS_MAX:
        raise ValueError("is not a host's name")
    return text


def _listen(given: object) -> HostPort:
    if not isinstance(given, str):
        # Only a ValueError becomes one of pydantic's findings.
        raise ValueError("is not host:port")  # noqa: TRY004
    return HostPort.parse(given)


def _optional_listen(given: object) -> HostPort | None:
    return None if given is None or given == "" else _listen(given)


def _target(given: object) -> HostPort:
    address = _listen(given)
    if address.port == 0:
        raise ValueError("has port 0, which nobody can be reached at")
    return address


def _optional_target(given: object) -> HostPort | None:
    return None if given is None or given == "" else _target(given)


def _split(given: object) -> object:
    """A list may be written as one text with commas, as it is in the environment."""
    if isinstance(given, str):
        return [part.strip() for part in given.split(",") if part.strip()]
    return given


def _path(given: object) -> object:
    """An empty text unsets a path, so that a flag can take back what a file says."""
    return None if given == "" else given


def _range(given: object) -> Range:
    if not isinstance(given, str):
        raise ValueError("is not an address range")  # noqa: TRY004
    try:
        return ipaddress.ip_network(given)
    except ValueError:
        raise ValueError("is not an address range: write it like 10.1.0.0/16") from None


Ranges = Annotated[
    tuple[Annotated[Range, PlainValidator(_range), PlainSerializer(str)], ...],
    BeforeValidator(_split),
]
Name = Annotated[str, AfterValidator(_name)]
Audience = Annotated[str, AfterValidator(_audience)]
ExportLogs = Annotated[tuple[Audience, ...], BeforeValidator(_split), AfterValidator(_export_logs)]
User = Annotated[str, AfterValidator(_user)]
Prefix = Annotated[str, AfterValidator(_prefix)]
TopicPrefix = Annotated[str, AfterValidator(_topic_prefix)]
ClientId = Annotated[str, AfterValidator(_client_id)]
Host = Annotated[str, AfterValidator(_host)]
Seconds = Annotated[float, Strict()]
Listen = Annotated[HostPort, PlainValidator(_listen), PlainSerializer(str)]
OptionalListen = Annotated[
    HostPort | None,
    PlainValidator(_optional_listen),
    PlainSerializer(lambda listen: listen and str(listen)),
]
OptionalTarget = Annotated[
    HostPort | None,
    PlainValidator(_optional_target),
    PlainSerializer(lambda target: target and str(target)),
]
Target = Annotated[HostPort, PlainValidator(_target), PlainSerializer(str)]
Targets = Annotated[tuple[Target, ...], BeforeValidator(_split)]
FilePath = Annotated[Path, PlainSerializer(str)]
OptionalPath = Annotated[FilePath | None, BeforeValidator(_path)]
