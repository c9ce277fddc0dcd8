"""Waiting for a mesh to be in some condition.

For: scripts, the demo and the chaos suite. Not for: streams. Invariant: every wait ends, and one
that ends in vain says what it saw last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

from meshd.client.errors import UNREACHABLE, ClientError
from meshd.client.statuses import Status
from meshd.client.stream import is_passing

T = TypeVar("T")

POLL_S = 0.2
"""Often enough for people, and a thousandth of what a meshd can answer."""


async def wait_until(
    ask: Callable[[], Awaitable[T]],
    condition: Callable[[T], bool],
    *,
    what: str,
    timeout_s: float,
    poll_s: float = POLL_S,
) -> T:
    """Ask until the answer meets the condition; returns that answer.

    A server that can't be reached yet is asked again. Raises ClientError when time is up, with
    what was waited for and the last answer or error.
    """

    def give_up(state: RetryCallState) -> Any:
        outcome = state.outcome
        last = "nothing" if outcome is None else outcome.exception() or outcome.result()
        title = f"waited {timeout_s:g} s in vain for {what}; last seen: {last!s:.500}"
        raise ClientError("meshd", UNREACHABLE, title)

    retrying = AsyncRetrying(
        retry=retry_if_exception(is_passing)
        | retry_if_result(lambda answer: not condition(answer)),
        wait=wait_fixed(poll_s),
        stop=stop_after_delay(timeout_s),
        retry_error_callback=give_up,
    )
    return await retrying(ask)


def is_converged(statuses: Sequence[Status]) -> bool:
    """Whether clusters agree on how far every log is, as far as they follow it.

    One that hasn't seen anything yet of a peer that was asked too doesn't agree.
    """
    seen: dict[str, tuple[str, int]] = {}
    asked = {status["cluster"] for status in statuses}
    for status in statuses:
        followed = {status["cluster"], *(peer["name"] for peer in status["peers"])}
        if (followed & asked) - status["vector"].keys():
            return False
        for cluster, place in status["vector"].items():
            mine = (place["log_id"], place["seq"])
            if seen.setdefault(cluster, mine) != mine:
                return False
    return bool(statuses)
