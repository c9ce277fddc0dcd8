"""The global tables, derived a second time, from `protocols/` alone.

For: holding what meshd serves against logs that etcdctl read. Not for: speed. Invariant: it shares
no code with meshd, so a mistake must be made twice to go unseen.

Left out: conditions, tiers' shares and spill, `serving`, the places shown, digests (their layout is
nobody's contract), and how clusters are seen: every cluster is in sight and at no distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chaos.history import Row

State = Mapping[str, Mapping[str, Any]]
"""What a log folds into, by noun and key, as `raw.fold` makes it."""
Data = Mapping[str, Any]

PROBED_OUT = {"failing": "probe-failing", "flapping": "flapping"}


def table(perspective: str, states: Mapping[str, State]) -> dict[str, tuple[Row, ...]]:
    """The global services as a cluster sees them: its own state is of its local log, the others'
    are of the export logs that it reads.
    """
    found = {}
    for key, service in states[perspective].get("service", {}).items():
        if service.get("global"):
            rows = _rows(key, perspective, states)
            found[key] = tuple(sorted(rows, key=lambda row: (row.priority, row.cluster, row.name)))
    return found


def _rows(key: str, perspective: str, states: Mapping[str, State]) -> Iterator[Row]:
    definitions = {
        cluster: state["service"][key]
        for cluster, state in states.items()
        if _takes_part(state.get("service", {}).get(key, {}), is_own=cluster == perspective)
    }
    own, here = definitions[perspective], _info(states[perspective])
    oldest = min(definitions, key=lambda name: (definitions[name].get("created_ms", 0), name))
    served = {_port_key(port) for port in definitions[oldest].get("ports", ())}
    for cluster, theirs in definitions.items():
        there = _info(states[cluster])
        excluded = "maintenance" if there.get("state") == "maintenance" else ""
        if cluster != perspective:
            if not _selects(theirs.get("export", {}).get("clusters", {}), perspective, here):
                excluded = "not-exported"
            elif not _selects(own.get("import", {}), cluster, there):
                excluded = "denied-by-import"
        for name, endpoint in states[cluster].get("endpoint", {}).items():
            if not name.startswith(f"{key}/"):
                continue
            listens = endpoint.get("ports") or theirs.get("ports", ())
            ports = [port for port in listens if _port_key(port) in served]
            weight = _weight(endpoint, theirs, there)
            yield Row(
                cluster,
                name.removeprefix(f"{key}/"),
                endpoint["address"],
                ",".join(sorted(map(port_text, ports or listens))),
                _priority(own, perspective, cluster, here, {**there, **_place(endpoint)}),
                weight,
                excluded or _reason(endpoint, weight, has_port=bool(ports) or not served),
            )


def _takes_part(service: Data, *, is_own: bool) -> bool:
    return service.get("global", False) and (is_own or service.get("shared") is not False)


def _info(state: State) -> Data:
    """What a cluster says of itself."""
    return next(iter(state.get("cluster", {}).values()), {})


def _selects(selector: Data, name: str, info: Data) -> bool:
    region = info.get("region", "")
    return (
        name in (selector.get("clusters") or [name])
        and name not in selector.get("not_clusters", ())
        and region in (selector.get("regions") or [region])
        and selector.get("labels", {}).items() <= info.get("labels", {}).items()
    )


def _port_key(port: Data) -> tuple[str, str]:
    return port.get("name", ""), port.get("protocol", "TCP")


def port_text(port: Data) -> str:
    """A port as rows have it."""
    name, protocol = _port_key(port)
    return f"{port['port']}/{protocol} {name}".rstrip()


def _weight(endpoint: Data, service: Data, cluster: Data) -> float:
    if cluster.get("state", "active") != "active":
        return 0
    product = 1
    for one in (endpoint, service, cluster):
        product *= one.get("weight", 100) * one.get("turned_percent", 100)
    return product / 100**5


def _place(endpoint: Data) -> dict[str, str]:
    return {key: endpoint[key] for key in ("region", "zone") if endpoint.get(key)}


def _priority(own: Data, perspective: str, cluster: str, here: Data, there: Data) -> int:
    """Ten times the rank in the order of affinity and tiers, and behind those the place."""
    affinity, tiers = own.get("affinity", "none"), own.get("tiers", ())
    first = 1 if affinity == "local" else 0
    if cluster == perspective and affinity == "local":
        return 0
    if cluster == perspective and affinity == "remote":
        return 10 * (first + len(tiers) + 1)
    names = {cluster, "@local"} if cluster == perspective else {cluster}
    named = [number for number, tier in enumerate(tiers) if names & set(tier["clusters"])]
    named += [number for number, tier in enumerate(tiers) if "*" in tier["clusters"]]
    if named:
        return 10 * (first + named[0])
    is_by_place = cluster != perspective and (affinity != "none" or tiers)
    return 10 * (first + len(tiers)) + (3 * _steps_away(here, there) if is_by_place else 0)


def _steps_away(here: Data, there: Data) -> int:
    region, zone = here.get("region", ""), here.get("zone", "")
    if region != there.get("region", ""):
        return 2
    if zone and zone == there.get("zone", ""):
        return 0
    return 1 if region else 2


def _reason(endpoint: Data, weight: float, *, has_port: bool) -> str:
    if not has_port:
        return "no-matching-port"
    if endpoint.get("terminating"):
        return "terminating"
    if not endpoint.get("ready", True):
        return "not-ready"
    return PROBED_OUT.get(endpoint.get("probed", ""), "" if weight else "draining")
