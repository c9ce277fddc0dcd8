"""Steps 4 and 5: west's meshd and etcd are killed while its shop lives on, and come back.

For: what is done and what must be so. Not for: the order of the steps (`story`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshd.demo.catalog import CALM, CLUSTERS, NAMESPACE, Trouble
from meshd.demo.configuration import PATIENCE
from meshd.demo.expect import only_from
from meshd.demo.feed import is_demoted, is_kept, is_ready, is_stale
from meshd.demo.mesh import has_demoted
from meshd.demo.scene import Finding, Step
from meshd.demo.stage import Stage, Stopwatch
from meshd.demo.tally import Tally

WEST = "west"
OTHERS = ("east", "south")
WITHOUT_WEST = Trouble(demoted=frozenset({WEST}))
SMALL_BURST = 15
NOTICE_SLACK_S = 4.0
"""How much later than its settings say a busy machine may notice something."""
CHANGES = 3
"""Made in east while west is away: what west has to read when it is back, and no more."""
CHANGED = ("catalog", "catalog-1")


@dataclass(frozen=True, slots=True)
class Before:
    """What the others had read of west before it died."""

    records_read: dict[str, int]


async def dies(stage: Stage, step: Step) -> Before:
    """SIGKILL to west's control plane: nothing else changes."""
    await stage.mesh.until_peers("all replicas kept", CLUSTERS, CLUSTERS, is_kept)
    before = Before(await _records_read(stage))
    digests = await _own_digests(stage)
    watch = Stopwatch()
    killed = await stage.mesh.sites[WEST].kill_control_plane()
    stage.scene.did(f"west: killed {killed}; its HTTP servers live")
    stage.find([await _still_answers(stage, step)])
    await _until_noticed(stage, step, watch)
    await stage.pause(6)
    await stage.measure(step, "east and south, west demoted", OTHERS, WITHOUT_WEST)
    await stage.measure(step, "west, by its last good table", (WEST,), CALM)
    after = await _own_digests(stage)
    detail = ", ".join(f"{name} {after[name][:8]}" for name in OTHERS)
    stage.find([Finding("the tables' digests have not changed", after == digests, detail)])
    await _keep_changing(stage, step)
    return before


async def _still_answers(stage: Stage, step: Step) -> Finding:
    """At once, before anybody can know more than that a connection broke."""
    tally = step.requests["right after the kill"] = Tally()
    await stage.traffic.burst(tally, OTHERS, SMALL_BURST, services=("recommend",))
    return only_from(tally, ("east", "recommend"), WEST)


async def _until_noticed(stage: Stage, step: Step, watch: Stopwatch) -> None:
    mesh = stage.mesh
    await mesh.until_peers("west Stale", OTHERS, (WEST,), is_stale)
    step.timings["west Stale"] = stale_s = watch.seconds
    stage.scene.say(f"east and south show west Stale after {stale_s:.1f} s, its backends stay")
    await mesh.until_peers("west demoted", OTHERS, (WEST,), is_demoted)
    await mesh.until_tables("west's backends behind the others'", OTHERS, has_demoted(WEST))
    step.timings["west demoted"] = demoted_s = watch.seconds
    stage.scene.say(f"west's backends come last after {demoted_s:.1f} s, and are still there")
    stage.find(
        [
            _in_time("west is shown Stale", stale_s, PATIENCE.silent_after_s),
            _in_time("west's backends are demoted", demoted_s, PATIENCE.stale_after_s),
        ]
    )


def _in_time(what: str, seconds: float, due_s: float) -> Finding:
    ok = seconds <= due_s + NOTICE_SLACK_S
    return Finding(f"{what} in time", ok, f"{seconds:.1f} s, due after {due_s:g} s")


async def _keep_changing(stage: Stage, step: Step) -> None:
    """East goes on taking changes, and south goes on hearing of them."""
    east = stage.mesh.sites["east"]
    endpoint = east.endpoint(*CHANGED)
    zones = [f"rack-{number}" for number in range(1, CHANGES + 1)]
    for zone in zones:
        await east.client.put_endpoint(NAMESPACE, *CHANGED, endpoint | {"zone": zone})
    stage.scene.did(f"east: catalog-1 moved through {', '.join(zones)}")
    await stage.converged(step, OTHERS)
    stage.find([await _hears(stage, "south", zones[-1])])


async def _hears(stage: Stage, cluster: str, zone: str) -> Finding:
    """A change of east is in this cluster's table."""
    table = await stage.mesh.sites[cluster].client.table(NAMESPACE, CHANGED[0])
    zones = [
        backend["zone"]
        for backend in table["backends"]
        if (backend["cluster"], backend["name"]) == ("east", CHANGED[1])
    ]
    found = f"{CHANGED[1]} is in {', '.join(zones) or 'no zone'} there"
    return Finding(f"{cluster} hears of east's changes", zones == [zone], found)


async def returns(stage: Stage, step: Step, before: Before) -> None:
    """West comes back on the same data: what it missed is read, and nothing twice."""
    watch = Stopwatch()
    await stage.mesh.sites[WEST].meshd.start()
    stage.scene.did("west: started meshd again, on the same data")
    await stage.mesh.until_ready(WEST)
    step.timings["west serves"] = watch.seconds
    await stage.mesh.until_peers("every peer Ready", CLUSTERS, CLUSTERS, is_ready)
    step.timings["every peer Ready"] = watch.seconds
    await stage.converged(step)
    step.timings["converged"] = watch.seconds
    stage.find(_read_once(before.records_read, await _records_read(stage)))
    stage.find([await _west_read_only_news(stage)])
    await stage.pause(6)
    await stage.measure(step, "all clusters", CLUSTERS, CALM)


def _read_once(before: dict[str, int], after: dict[str, int]) -> Iterator[Finding]:
    for name in OTHERS:
        more = after[name] - before[name]
        detail = f"{before[name]} records before, {after[name]} now"
        yield Finding(f"{name} reads no record of west again", more == 0, detail)


async def _west_read_only_news(stage: Stage) -> Finding:
    """West's counters began at 0 when it started: what it read is what it had missed."""
    peers = (await stage.mesh.look(WEST)).peers
    read = {name: peers[name].records_read for name in OTHERS}
    again = sum(peers[name].records_duplicate for name in OTHERS)
    detail = f"{read['east']} of east, which made {CHANGES} changes; {read['south']} of south"
    ok = read == {"east": CHANGES, "south": 0} and not again
    return Finding("west reads only the records that it missed", ok, detail)


async def _records_read(stage: Stage) -> dict[str, int]:
    return {name: (await stage.mesh.look(name)).peers[WEST].records_read for name in OTHERS}


async def _own_digests(stage: Stage) -> dict[str, str]:
    return {name: (await stage.mesh.look(name)).digest for name in OTHERS}
