"""The client: one method for each thing that can be asked of a meshd.

For: the command line, the demo, the chaos suite. Not for: printing answers. Invariants: a write is
repeated only with the same Idempotency-Key, so it is done at most once; every call ends.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal, Self, cast
from urllib.parse import urlencode

import orjson
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_before_delay,
    wait_random_exponential,
)

from meshd.client.answers import (
    ApplyResult,
    ClusterItem,
    EndpointItem,
    EventPage,
    LogItem,
    OwnClusterItem,
    PeerItem,
    ServiceItem,
    Status,
    WriteResult,
)
from meshd.client.calls import JSON_TYPE, path_of
from meshd.client.errors import ClientError, error_of
from meshd.client.http import Http, Target
from meshd.client.operating import OperationCalls
from meshd.client.ownership import NOBODYS, Ownership
from meshd.client.policies import PolicyCalls
from meshd.client.registrations import Registrations
from meshd.client.reports import Agreement, Plan
from meshd.client.sse import StreamEvent
from meshd.client.stream import ALL_EVENTS, EventChoice, Following, Start, follow
from meshd.client.table_reads import TableReads
from meshd.client.things import ThingCalls
from meshd.client.waiting import is_converged, wait_until

YAML_TYPE = "application/yaml"
PLAN_TIMEOUT_S = 330.0
"""As long as the server takes at most: it may have to derive the tables of a whole mesh twice."""

_BACKOFF = wait_random_exponential(multiplier=0.1, max=2.0)


class Client(TableReads, ThingCalls, PolicyCalls, Registrations, OperationCalls):
    """A connection to one meshd. Enter it before use; every method raises ClientError."""

    def __init__(self, target: Target) -> None:
        self._http = Http(target)

    @property
    def url(self) -> str:
        """Which meshd this is."""
        return self._http.base

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    # Reading.

    async def status(self) -> Status:
        """The meshd in short."""
        return cast("Status", await self._get("/v1/status"))

    async def clusters(self, *, as_of: str = "") -> list[ClusterItem]:
        """All clusters that are known here, this one included. as_of, here and below: as it was at
        this time or vector.
        """
        return cast("list[ClusterItem]", await self._items("/v1/clusters", as_of=as_of))

    async def cluster(self, name: str) -> ClusterItem:
        """One cluster."""
        return cast("ClusterItem", await self._get(path_of("clusters", name)))

    async def own_cluster(self) -> OwnClusterItem:
        """What the cluster says of itself."""
        return cast("OwnClusterItem", await self._get("/v1/cluster"))

    async def peers(self) -> list[PeerItem]:
        """How following each peer goes."""
        return cast("list[PeerItem]", await self._items("/v1/peers"))

    async def peer(self, name: str) -> PeerItem:
        """How following one peer goes."""
        return cast("PeerItem", await self._get(path_of("peers", name)))

    async def services(self, namespace: str = "", *, as_of: str = "") -> list[ServiceItem]:
        """The cluster's own definitions."""
        found = await self._items("/v1/services", namespace=namespace, as_of=as_of)
        return cast("list[ServiceItem]", found)

    async def service(self, namespace: str, name: str, *, as_of: str = "") -> ServiceItem:
        """One of the cluster's own definitions."""
        path = path_of("services", namespace, name)
        return cast("ServiceItem", await self._get(path, as_of=as_of))

    async def endpoints(
        self, namespace: str = "", service: str = "", *, as_of: str = ""
    ) -> list[EndpointItem]:
        """The cluster's own endpoints."""
        query = {"namespace": namespace, "service": service, "as_of": as_of}
        return cast("list[EndpointItem]", await self._items("/v1/endpoints", **query))

    async def endpoint(self, namespace: str, service: str, name: str) -> EndpointItem:
        """One of the cluster's own endpoints."""
        path = path_of("services", namespace, service, "endpoints", name)
        return cast("EndpointItem", await self._get(path))

    async def verify(self) -> Agreement:
        """Whether all clusters agree, and who is behind whom."""
        return cast("Agreement", await self._get("/v1/verify"))

    async def plan(
        self,
        raw: bytes,
        *,
        content_type: str = YAML_TYPE,
        remove: Sequence[str] = (),
        perspectives: Sequence[str] = (),
    ) -> Plan:
        """What manifests and removals would do to the tables of every cluster, or of these ones.

        remove: like `service/shop/web` and `endpoint/shop/web/a`. Nothing is changed.
        """
        query = [*(("remove", name) for name in remove)]
        query += [("perspective", name) for name in perspectives]
        found = await self._http.json(
            "POST",
            "/v1/plan",
            query=query,
            body=raw or None,
            headers={"Content-Type": content_type} if raw else None,
            timeout_s=PLAN_TIMEOUT_S,
        )
        return cast("Plan", found)

    async def events(
        self,
        *,
        cluster: str = "",
        after: int = 0,
        limit: int = 0,
        kind: str = "",
        choice: EventChoice = ALL_EVENTS,
    ) -> EventPage:
        """A page of one log's events, the own one's unless a cluster is named. kind: of one type;
        choice: of several, and with other conditions.
        """
        given = {
            "cluster": cluster,
            "after": str(after) if after else "",
            "limit": str(limit) if limit else "",
            "type": kind,
        }
        query = [(name, value) for name, value in given.items() if value] + choice.query()
        return cast("EventPage", await self._http.json("GET", "/v1/events", query=query))

    def follow_events(
        self,
        *,
        after: str = "",
        start: Start = "now",
        clusters: Sequence[str] = (),
        patience_s: float = 60.0,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Events as they happen, over any number of connections, each resuming after the last
        event. after: a vector to go on from; else start. Use it in `contextlib.aclosing`.
        """
        return self.follow(
            Following(after=after, start=start, clusters=clusters, patience_s=patience_s)
        )

    def follow(self, following: Following) -> AsyncGenerator[StreamEvent, None]:
        """As `follow_events`, with everything that can be chosen."""
        return follow(self._http, following)

    # Writing.

    async def put_service(
        self, namespace: str, name: str, value: Mapping[str, object], *, key: str = ""
    ) -> WriteResult:
        """Define a service. key: the Idempotency-Key; a new one if empty."""
        path = path_of("services", namespace, name)
        return cast("WriteResult", await self._write("PUT", path, orjson.dumps(value), key))

    async def delete_service(self, namespace: str, name: str, *, key: str = "") -> WriteResult:
        """Remove a service together with its endpoints."""
        path = path_of("services", namespace, name)
        return cast("WriteResult", await self._write("DELETE", path, None, key))

    async def put_endpoint(
        self,
        namespace: str,
        service: str,
        name: str,
        value: Mapping[str, object],
        *,
        key: str = "",
    ) -> WriteResult:
        """Add an endpoint, or replace its value."""
        path = path_of("services", namespace, service, "endpoints", name)
        return cast("WriteResult", await self._write("PUT", path, orjson.dumps(value), key))

    async def delete_endpoint(
        self, namespace: str, service: str, name: str, *, key: str = ""
    ) -> WriteResult:
        """Remove an endpoint."""
        path = path_of("services", namespace, service, "endpoints", name)
        return cast("WriteResult", await self._write("DELETE", path, None, key))

    async def describe_cluster(self, value: Mapping[str, object], *, key: str = "") -> WriteResult:
        """Say how the cluster is now: state, weight, announces; the others are at their default."""
        body = orjson.dumps(value)
        return cast("WriteResult", await self._write("PUT", "/v1/cluster", body, key))

    async def apply(
        self,
        raw: bytes,
        *,
        dry_run: bool = False,
        ownership: Ownership = NOBODYS,
        expect_position: str = "",
        content_type: str = YAML_TYPE,
        key: str = "",
    ) -> ApplyResult:
        """Apply manifests: all of them or none. expect_position: only if the log is still there,
        where a dry run said that it decided (`decided_on`).
        """
        query = {"dry_run": "true"} if dry_run else {}
        query |= ownership.query()
        if expect_position:
            query["expect_position"] = expect_position
        path = "/v1/apply" + (f"?{urlencode(query)}" if query else "")
        return cast("ApplyResult", await self._write("POST", path, raw, key, content_type))

    async def control_peer(self, name: str, action: Literal["pause", "resume", "resync"]) -> None:
        """Pause or resume reading a peer, or have its log read anew."""
        await self._write("POST", path_of("peers", name, action), None, "")

    async def put_peer(
        self, name: str, value: Mapping[str, object], *, key: str = ""
    ) -> WriteResult:
        """List a peer in the cluster's log, or replace what is listed of it."""
        body = orjson.dumps(value)
        return cast("WriteResult", await self._write("PUT", path_of("peers", name), body, key))

    async def delete_peer(self, name: str, *, key: str = "") -> WriteResult:
        """Take a peer off the list in the cluster's log."""
        return cast("WriteResult", await self._write("DELETE", path_of("peers", name), None, key))

    async def skip_record(self, name: str, seq: int | None = None, *, key: str = "") -> WriteResult:
        """Pass over the record at which a peer is Quarantined. seq: only if it is there."""
        body = None if seq is None else orjson.dumps({"seq": seq})
        path = path_of("peers", name, "skip")
        return cast("WriteResult", await self._write("POST", path, body, key))

    async def logs(self) -> list[LogItem]:
        """The logs in its etcd."""
        return cast("list[LogItem]", (await self._get("/v1/logs"))["items"])

    def archive(self, log: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """One of its logs as an archive, in pieces: local, export/AUDIENCE or replica/PEER."""
        return self._http.stream(
            "/v1/logs/archive", [("log", log)], {}, "application/vnd.meshd.log"
        )

    # Waiting.

    async def wait_ready(self, timeout_s: float = 60.0) -> Status:
        """Wait until this meshd says that it is ready, also while it can't be reached yet."""
        what = f"{self.url} to be ready"
        return await wait_until(self.status, _is_ready, what=what, timeout_s=timeout_s)

    # Below all of these.

    async def _get(self, path: str, **query: str) -> Any:
        given = {name: value for name, value in query.items() if value}
        return await self._http.json("GET", path, query=given)

    async def _items(self, path: str, labels: Sequence[str] = (), /, **query: str) -> list[Any]:
        given: list[tuple[str, str]] = [(name, value) for name, value in query.items() if value]
        given += [("label", label) for label in labels]
        answer = await self._http.json("GET", path, query=given)
        items = answer.get("items")
        if not isinstance(items, list):
            raise error_of(self.url + path, 200, orjson.dumps(answer), {})
        return items

    async def _write(
        self, method: str, path: str, body: bytes | None, key: str, kind: str = JSON_TYPE
    ) -> Any:
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        if body is not None:
            headers["Content-Type"] = kind
        retrying = AsyncRetrying(
            retry=retry_if_exception(_may_repeat),
            wait=_wait_s,
            stop=stop_before_delay(self._http.target.repeat_for_s),
            reraise=True,
        )
        return await retrying(self._http.json, method, path, body=body, headers=headers)


async def wait_converged(clients: Sequence[Client], timeout_s: float = 60.0) -> list[Status]:
    """Wait until all these clusters agree on how far every log is; returns their statuses."""

    async def ask() -> list[Status]:
        statuses = [await _status_of(client) for client in clients]
        return [status for status in statuses if status is not None]

    def condition(statuses: list[Status]) -> bool:
        return len(statuses) == len(clients) and is_converged(statuses)

    what = f"{len(clients)} clusters to converge"
    return await wait_until(ask, condition, what=what, timeout_s=timeout_s)


async def _status_of(client: Client) -> Status | None:
    """None while it can't be had; one absent cluster must not end the wait for it."""
    try:
        return await client.status()
    except ClientError as error:
        if not error.is_passing:
            raise
        return None


def _is_ready(status: Status) -> bool:
    return status["ready"]


def _may_repeat(error: BaseException) -> bool:
    """A meshd that isn't there at all is for the caller to know at once."""
    return isinstance(error, ClientError) and error.is_passing and not error.is_unreachable


def _wait_s(state: RetryCallState) -> float:
    """As the server asks, but at least with the usual backoff."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.retry_after_s if isinstance(error, ClientError) else None
    return max(_BACKOFF(state), asked_s or 0.0)
