"""Steps 1 and 2: the mesh starts, and serves while nothing is wrong.

For: what is done and what must be so. Not for: the order of the steps (`story`).
"""

from __future__ import annotations

import asyncio

from meshd.demo.catalog import CALM, CLUSTERS, EAST_ONLY, LOCAL_ONLY, services_for
from meshd.demo.expect import never_from, only_from
from meshd.demo.feed import is_ready
from meshd.demo.scene import Finding, Step
from meshd.demo.site import Site
from meshd.demo.stage import Stage, Stopwatch, unreachable


async def start(stage: Stage, step: Step) -> None:
    """Etcds, meshds, peers, the shop, agreement."""
    watch = Stopwatch()
    sites = stage.mesh.sites.values()
    endpoints = sum(site.endpoints for site in sites)
    stage.scene.say(f"opening {endpoints} HTTP servers, starting {len(sites)} meshd")
    async with asyncio.TaskGroup() as tasks:
        for site in sites:
            tasks.create_task(_start_site(stage, site), name=f"start {site.name}")
    step.timings["processes up"] = watch.seconds
    await stage.mesh.until_peers("every peer Ready", CLUSTERS, CLUSTERS, is_ready)
    step.timings["peers Ready"] = watch.seconds
    stage.scene.did("every cluster sees both its peers Ready")
    for site in sites:
        await stage.apply(site)
    await stage.converged(step)
    stage.find([await _own_services_only(stage)])
    await stage.mesh.until_read()


async def _start_site(stage: Stage, site: Site) -> None:
    await site.shop.start()
    await site.meshd.start()
    etcd = (site.place.address, site.place.etcd_port)
    await stage.mesh.until(f"{site.name}'s etcd", lambda: unreachable(*etcd))
    stage.scene.did(f"{site.name}: etcd answers on {site.place.etcd}")
    await stage.mesh.until_ready(site.name)
    stage.scene.did(f"{site.name}: meshd serves {site.place.url}")
    await stage.mesh.until(f"{site.name}'s shop", lambda: unreachable(*site.last_endpoint))


async def _own_services_only(stage: Stage) -> Finding:
    """What isn't global is in nobody's table; what isn't shared, in its own cluster's only."""
    seen = {name: await stage.mesh.service_names(name) for name in CLUSTERS}
    with_private = [name for name in CLUSTERS if LOCAL_ONLY in seen[name]]
    with_ledger = [name for name in CLUSTERS if EAST_ONLY in seen[name]]
    ok = all(seen[name] == set(services_for(name)) for name in CLUSTERS)
    detail = (
        f"{LOCAL_ONLY} (not global) in {', '.join(with_private) or 'none'},"
        f" {EAST_ONLY} (not shared) in {', '.join(with_ledger) or 'none'}"
    )
    return Finding("each table holds its own cluster's global services and no others", ok, detail)


async def steady(stage: Stage, step: Step) -> None:
    """Requests from everywhere, while nothing is wrong."""
    stage.scene.say("affinity local stays home, remote goes abroad, none follows the weights")
    await stage.pause(6)
    tally = await stage.measure(step, "all clusters", CLUSTERS, CALM)
    stage.find(
        [
            only_from(tally, ("east", "cart"), "east"),
            only_from(tally, ("south", "recommend"), "west"),
            never_from(tally, ("east", "search"), "east"),
        ]
    )
