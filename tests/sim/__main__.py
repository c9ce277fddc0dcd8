"""`make sim`: run schedules by their seeds, and say what was checked and what happened.

For: minutes to hours of seeds, and replaying one. Not for: the gate (`test_sim`). Usage:
make sim ARGS='--seconds 60 --ring both', ARGS='--ring 1 --seed 17', ARGS='--mutate noident'.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import sys
import textwrap
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from tests.sim import core_ring, daemon_ring
from tests.sim.mutations import MUTATIONS, mutated
from tests.sim.tally import Tally

RINGS: dict[int, Callable[[int, Tally], int]] = {1: core_ring.simulate, 2: daemon_ring.simulate}


def run(ring: int, seeds: Iterable[int], seconds: float, mutation: str) -> int | None:
    """Run one ring over seeds for a time and report; returns the seed that failed, if one did."""
    tally, trace, failed = Tally(), 0, None
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    with mutated(mutation):
        for seed in seeds:
            if seconds and time.monotonic() - began_s >= seconds:
                break
            try:
                trace = zlib.crc32(RINGS[ring](seed, tally).to_bytes(4, "big"), trace)
            except Exception as error:  # noqa: BLE001 a crash is a finding like a broken invariant
                print(f"ring {ring}, seed {seed}: {type(error).__name__}: {error}")
                failed = seed
                break
    elapsed_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    rates = (f"{tally.schedules / spent_s * 60:,.0f}" for spent_s in (elapsed_s, cpu_s))
    print(
        f"ring {ring}: {tally.schedules:,} schedules in {elapsed_s:.1f} s,"
        f" {next(rates)}/min ({next(rates)} in a minute of one core)"
    )
    for title, counts in (("checks", tally.checks), ("sometimes", tally.sometimes)):
        print(textwrap.fill(_shown(counts), 100, **_LAYOUT, initial_indent=f"  {title:<11}"))
    print(f"  trace      {trace:08x}")
    if failed is not None:
        mutate = f" --mutate {mutation}" if mutation else ""
        print(f"replay it: make sim ARGS='--ring {ring} --seed {failed}{mutate}'")
    return failed


_LAYOUT: dict[str, Any] = {
    "subsequent_indent": " " * 13,
    "break_long_words": False,
    "break_on_hyphens": False,
}


def _shown(counts: dict[str, int]) -> str:
    def place(name: str) -> tuple[int, str]:
        return (int(name[1:]), "") if name[1:].isdigit() else (0, name)

    return ", ".join(f"{name} {counts[name]:,}" for name in sorted(counts, key=place))


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    if not dots:
        raise argparse.ArgumentTypeError("write A..B")
    return range(int(first), int(last) + 1)


def main() -> int:
    """Run what was asked for; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seconds", type=float, help="for each ring; 60 unless seeds are given")
    parser.add_argument("--seed", type=int, help="one schedule")
    parser.add_argument("--seeds", type=_seeds, help="A..B, both included")
    parser.add_argument("--ring", choices=("1", "2", "both"), default="both")
    parser.add_argument("--mutate", choices=sorted(MUTATIONS), default="", help="put a bug in")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.set_threshold(50_000)  # every schedule leaves a loop of rubbish behind
    one = range(asked.seed, asked.seed + 1) if asked.seed is not None else None
    seeds: range | None = one or asked.seeds
    seconds = asked.seconds if asked.seconds is not None else (0.0 if seeds else 60.0)
    rings = (1, 2) if asked.ring == "both" else (int(asked.ring),)
    failed = [run(ring, seeds or itertools.count(), seconds, asked.mutate) for ring in rings]
    return 1 if any(seed is not None for seed in failed) else 0


if __name__ == "__main__":
    sys.exit(main())
