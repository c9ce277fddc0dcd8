"""The endpoints of one etcd as one thing that can be called.

For: choosing an endpoint, logging in, deadlines, and errors by reaction. Not for: what is asked
(`kv`, `watch`). Invariant: a request is sent at most once, except one that was refused for its
token, which etcd has not carried out and which is sent once more after logging in again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import grpc

from meshd.edges.etcd.endpoint import Endpoint, UnaryCall
from meshd.edges.etcd.errors import is_no_answer, is_stale_token, translate
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.etcd.target import EtcdTarget
from meshd.model.errors import DeniedError, MeshdError, OutcomeUnknownError, TransientError

_AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"
_CONNECT_S_MIN = 0.05
_REQUIRE_LEADER = (("hasleader", "true"),)
"""A member that has no leader then refuses at once, and ends a watch, instead of keeping silent."""

_Response = TypeVar("_Response")
Metadata = tuple[tuple[str, str], ...]


class Within(NamedTuple):
    """How long a call may take. patience_s: once it was sent, 0 for as long as there is time.
    stretch: times the usual deadline.
    """

    patience_s: float = 0.0
    stretch: float = 1.0


USUAL = Within()


class Connection:
    """Calls to whichever endpoint works."""

    def __init__(self, target: EtcdTarget) -> None:
        self._target = target
        self._endpoints = [Endpoint(address, target) for address in target.endpoints]
        self._token: str | None = None
        self._login = asyncio.Lock()
        self._is_closed = False

    def members(self, call_timeout_s: float) -> Iterator[Connection]:
        """Connections to one endpoint each, for what is asked of a member; to be closed by those
        who take them.
        """
        for address in self._target.endpoints:
            yield Connection(
                replace(self._target, endpoints=(address,), call_timeout_s=call_timeout_s)
            )

    @property
    def call_timeout_s(self) -> float:
        """The whole time of a call."""
        return self._target.call_timeout_s

    async def unary(
        self,
        method: str,
        request: object,
        response: type[_Response],
        *,
        writes: bool = False,
        on_stream: bool = False,
        within: Within = USUAL,
    ) -> _Response:
        """Ask once and return the answer, before the deadline or not at all."""

        def call_on(endpoint: Endpoint) -> UnaryCall:
            return (endpoint.unary_on_stream if on_stream else endpoint.unary)(method, response)

        answer: _Response = await self._ask(call_on, request, writes=writes, within=within)
        return answer

    async def many_on_stream(
        self, method: str, requests: Sequence[object], response: type[_Response]
    ) -> list[_Response]:
        """Ask many times on one stream, before one deadline, and return the answers in order."""

        def call_on(endpoint: Endpoint) -> UnaryCall:
            return endpoint.many_on_stream(method, response)

        answers: list[_Response] = await self._ask(call_on, requests, writes=False)
        return answers

    async def _ask(
        self,
        call_on: Callable[[Endpoint], UnaryCall],
        request: object,
        *,
        writes: bool,
        within: Within = USUAL,
    ) -> Any:
        limit_s = self._target.call_timeout_s * within.stretch
        deadline_s = asyncio.get_running_loop().time() + limit_s
        endpoint = await self.pick(deadline_s)
        token = await self.token(endpoint, deadline_s)
        call = call_on(endpoint)
        try:
            try:
                answer = await self._send(call, request, deadline_s, within.patience_s)
            except grpc.aio.AioRpcError as error:
                if token is None or not is_stale_token(error.details() or ""):
                    raise
                await self.token(endpoint, deadline_s, stale=token)
                answer = await self._send(call, request, deadline_s, within.patience_s)
        except grpc.aio.AioRpcError as error:
            if is_no_answer(error):
                self.demote(endpoint)
            raise translate(error, endpoint.name, writes=writes) from error
        except asyncio.CancelledError as error:
            self.raise_if_closed(error, writes=writes)
            raise
        return answer

    async def pick(self, deadline_s: float) -> Endpoint:
        """Return the first endpoint that is connected or can be."""
        failures: list[MeshdError] = []
        for endpoint in tuple(self._endpoints):
            if self._is_closed:
                break
            if endpoint.is_ready:
                return endpoint
            left_s = deadline_s - asyncio.get_running_loop().time()
            if left_s < _CONNECT_S_MIN:
                break
            try:
                await endpoint.connect(min(self._target.connect_timeout_s, left_s))
            except asyncio.CancelledError as error:
                self.raise_if_closed(error)
                raise
            except MeshdError as error:
                failures.append(error)
            else:
                self._prefer(endpoint)
                return endpoint
        if self._is_closed:
            raise TransientError(f"the connection to {self._target.endpoints[0]} is closed")
        why = "; ".join(str(failure) for failure in failures) or "no time left to connect"
        if failures and all(isinstance(failure, DeniedError) for failure in failures):
            raise DeniedError(why)
        raise TransientError(why)

    async def token(
        self, endpoint: Endpoint, deadline_s: float, *, stale: str | None = None
    ) -> str | None:
        """Return the token for our user, None without a password. stale: one known not to work.

        An empty token means that etcd has its authentication switched off. Without a password there
        is nothing to log in with: etcd then takes the name in our certificate.
        """
        if not (self._target.username and self._target.password):
            return None
        if self._token is not None and self._token != stale:
            return self._token
        try:
            async with asyncio.timeout_at(deadline_s), self._login:
                if self._token is None or self._token == stale:
                    self._token = await self._authenticate(endpoint, deadline_s)
                return self._token
        except TimeoutError as error:
            raise TransientError(f"{endpoint.name}: no time left to log in") from error

    def metadata(self) -> Metadata:
        """Return what goes with every request."""
        return (*_REQUIRE_LEADER, ("token", self._token)) if self._token else _REQUIRE_LEADER

    def demote(self, endpoint: Endpoint) -> None:
        """Try the other endpoints first from now on."""
        self._endpoints.remove(endpoint)
        self._endpoints.append(endpoint)

    def raise_if_closed(self, cause: asyncio.CancelledError, *, writes: bool = False) -> None:
        """Turn gRPC's cancellation of a call into an error, if it was `close` that caused it."""
        task = asyncio.current_task()
        if self._is_closed and not (task and task.cancelling()):
            error = OutcomeUnknownError if writes else TransientError
            raise error(f"the connection to {self._target.endpoints[0]} was closed") from cause

    async def close(self) -> None:
        """Close all channels."""
        self._is_closed = True
        for endpoint in self._endpoints:
            await endpoint.close()

    async def _send(
        self, call: UnaryCall, request: object, deadline_s: float, patience_s: float
    ) -> Any:
        left_s = max(0.0, deadline_s - asyncio.get_running_loop().time())
        left_s = min(left_s, patience_s or math.inf)
        return await call(request, timeout=left_s, metadata=self.metadata())

    async def _authenticate(self, endpoint: Endpoint, deadline_s: float) -> str:
        request = pb.AuthenticateRequest(name=self._target.username, password=self._target.password)
        call = endpoint.unary(_AUTHENTICATE, pb.AuthenticateResponse)
        left_s = max(0.0, deadline_s - asyncio.get_running_loop().time())
        try:
            # Without the old token: with an invalid one even this is refused.
            answer: Any = await call(request, timeout=left_s)
        except grpc.aio.AioRpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                return ""
            raise translate(error, endpoint.name, writes=False) from error
        token: str = answer.token
        return token

    def _prefer(self, endpoint: Endpoint) -> None:
        self._endpoints.remove(endpoint)
        self._endpoints.insert(0, endpoint)
