"""What REST, streams and etcdctl answered, as entries of a history.

For: recorders. Not for: asking. Invariants: pure; written from `protocols/openapi.json` and
`protocols/keyspace.md`; what an answer lacks is a KeyError, and nothing is made up.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from chaos.history import (
    Completed,
    Outcome,
    PeerSeen,
    RawKey,
    RawLog,
    Row,
    StatusRead,
    StreamMessage,
    TableRead,
)
from chaos.reference import port_text

Json = Mapping[str, Any]
TYPE_PREFIX = "io.meshd."
HTTP_SUCCESS = range(200, 300)
HTTP_REFUSED = range(400, 500)
HTTP_NOT_NOW = frozenset({408, 429})
"""Refusals that say nothing of the command."""
LOGS = {"local": 1, "export": 2, "replica": 2}
"""How many parts of a key say of which log it is, by the first of them."""


def completed(op: int, at_ns: int, status: int, answer: Json) -> Completed:
    """The answer to a command. With 5xx it may have been done nevertheless."""
    if status not in HTTP_SUCCESS:
        is_certain = status in HTTP_REFUSED and status not in HTTP_NOT_NOW
        outcome = Outcome.FAIL if is_certain else Outcome.UNKNOWN
        error = str(answer.get("detail") or answer.get("title", ""))
        return Completed(at_ns=at_ns, op=op, outcome=outcome, status=status, error=error)
    made = bool(answer["events"])
    return Completed(
        at_ns=at_ns,
        op=op,
        outcome=Outcome.OK,
        status=status,
        log_id=answer["position"].split(":")[1],
        first_seq=answer["first_seq"] if made else 0,
        last_seq=answer["last_seq"] if made else 0,
        repeated=answer["repeated"],
    )


def table_read(
    reader: str, process: str, at_ns: int, answer: Json, *, anew: bool = False
) -> TableRead:
    """`GET /v1/tables` of a process. anew: with `as_of`, which derives it from the logs."""
    return TableRead(
        at_ns=at_ns,
        reader=reader,
        process=process,
        cluster=answer["perspective"],
        vector=answer["vector_text"],
        events_after=answer["events_after"],
        digest=answer["digest"] or "",
        stale=tuple(answer["stale"]),
        anew=anew,
        services={
            f"{service['namespace']}/{service['name']}": tuple(map(_row, service["backends"]))
            for service in answer["services"]
        },
    )


def _row(backend: Json) -> Row:
    return Row(
        backend["cluster"],
        backend["name"],
        backend["address"],
        ",".join(sorted(map(port_text, backend["ports"]))),
        backend["priority"],
        backend["weight"],
        backend["reason"] or "",
    )


def status_read(process: str, at_ns: int, answer: Json) -> StatusRead:
    """`GET /v1/status`."""
    return StatusRead(
        at_ns=at_ns,
        process=process,
        cluster=answer["cluster"],
        ready=answer["ready"],
        vector=answer["vector_text"],
        digest=answer["digest"] or "",
        peers=tuple(
            PeerSeen(
                peer["name"],
                peer["phase"],
                peer["seq"] or 0,
                -1.0 if peer["heartbeat_age_s"] is None else float(peer["heartbeat_age_s"]),
            )
            for peer in answer["peers"]
        ),
    )


def stream_message(
    subscriber: str, connection: int, cluster: str, at_ns: int, event: Json
) -> StreamMessage:
    """A cloud event that a cluster's meshd told a subscriber. Peers' events are of their `mesh`."""
    of, log_id, seq = event["id"].split(":")
    return StreamMessage(
        at_ns=at_ns,
        subscriber=subscriber,
        connection=connection,
        cluster=cluster,
        of=of,
        log="local" if of == cluster else "export/mesh",
        log_id=log_id,
        seq=int(seq),
        type=event["type"].removeprefix(TYPE_PREFIX),
        subject=event["subject"],
    )


def raw_logs(
    cluster: str, at_ns: int, etcdctl_json: bytes, prefix: str = "/meshd/v1/"
) -> list[RawLog]:
    """All logs in what `etcdctl get --prefix <prefix> -w json` printed."""
    logs: dict[str, list[RawKey]] = {}
    for kv in orjson.loads(etcdctl_json).get("kvs", []):
        key = base64.b64decode(kv["key"]).decode().removeprefix(prefix)
        parts = key.split("/")
        number = LOGS.get(parts[0], len(parts))
        if number < len(parts):
            name, rest = "/".join(parts[:number]), "/".join(parts[number:])
            value = kv.get("value", "")
            logs.setdefault(name, []).append(RawKey(rest, kv["mod_revision"], kv["version"], value))
    return [
        RawLog(at_ns=at_ns, cluster=cluster, log=name, keys=tuple(keys))
        for name, keys in sorted(logs.items())
    ]
