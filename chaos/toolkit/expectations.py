"""What has to come true in an experiment, or it must not pass.

For: hypotheses and methods. Not for: the questions themselves (`probes`). Invariant: what was
expected and didn't come true makes `chaos run` end with another exit status than 0.

Chaos Toolkit alone doesn't see to that. What a probe within the method says is recorded and no
more, so a fault without effect would pass: `expect` notes it, and the hypothesis' last probe,
`expectations_met`, tells it. And a hypothesis that doesn't hold before the method ends `chaos run`
with 0 if its probe said so, and with 1 if its probe failed: so what isn't as expected is an error.
"""

from __future__ import annotations

import inspect
import time
from typing import Any

from chaos.toolkit import probes
from chaos.toolkit.whereabouts import Configuration

__all__ = ["expect", "expectations_met"]

ASK_EVERY_S = 0.2
_unmet: list[str] = []


class ExpectationError(Exception):
    """Something didn't come true in time."""


def expect(
    probe: str,
    of: dict[str, Any],
    to_be: Any,
    within_s: float = 0.0,
    configuration: Configuration = None,
) -> Any:
    """Ask a probe, with the arguments `of`, until it says `to_be`; returns what it said. to_be: a
    value, or {other_than: value}, {at_least: number}, {at_most: number}.
    """
    try:
        return _come_true(probe, of, to_be, within_s, configuration)
    except Exception as error:
        # Whatever it is, it must not pass for something that came true.
        _unmet.append(str(error))
        raise


def _come_true(
    probe: str, of: dict[str, Any], to_be: Any, within_s: float, configuration: Configuration
) -> Any:
    if probe not in probes.__all__:
        raise ExpectationError(f"there is no probe {probe}; there are {', '.join(probes.__all__)}")
    ask = getattr(probes, probe)
    try:
        inspect.signature(ask).bind(**of)
    except TypeError as error:
        raise ExpectationError(f"{probe}: {error}; its arguments go into `of`") from None
    end_s = time.monotonic() + within_s
    while not _is(found := ask(**of, configuration=configuration), to_be):
        if time.monotonic() >= end_s:
            given = ", ".join(f"{name}={value}" for name, value in of.items())
            what = f"{probe}({given}) is {found!r} after {within_s:g} s, not {to_be!r}"
            raise ExpectationError(what)
        time.sleep(ASK_EVERY_S)
    return found


def _is(found: Any, to_be: Any) -> bool:
    match to_be:
        case {"other_than": other}:
            return bool(found != other)
        case {"at_least": least}:
            return bool(found >= least)
        case {"at_most": most}:
            return bool(found <= most)
        case _:
            return bool(found == to_be)


def expectations_met() -> bool:
    """Whether all that was expected so far in this run came true; raises if it didn't, as `expect`
    does.
    """
    if _unmet:
        raise ExpectationError("; ".join(_unmet))
    return True
