"""Probing the own cluster's endpoints: a leader's chore.

For: asking each endpoint when it is due, and recording what that comes to. Not for: who may be
asked (`core.probing`), what answers mean (`core.health`), nor how one asks (`edges.probe`).
Invariants: only the leader asks, and records only while it leads; no endpoint is asked twice at a
time; what was recorded outlasts the leader, and its successor goes on from there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import structlog

from meshd.core.health import Health, answered
from meshd.core.probing import Aim, Ground, aims, ground_of, outdated
from meshd.core.state import ClusterState
from meshd.model.command import RecordProbe, Submission
from meshd.model.endpoint import Endpoint
from meshd.model.errors import MeshdError
from meshd.model.ids import EndpointKey, ServiceKey
from meshd.model.probe import Probe, ProbeResult
from meshd.runtime.guards import GuardError
from meshd.runtime.leadership import Leadership
from meshd.runtime.ports import Chance, Clock, Look
from meshd.runtime.projector import Projector
from meshd.runtime.writer import Writer
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

ACTOR = "meshd: probe"
TICK_S = 0.2
"""How late a probe may be: a fifth of the shortest interval."""
REFRESH_S = 1.0
"""How often it is looked whether services or endpoints changed."""
JITTER = 0.1
"""Endpoints that came at once aren't asked at once for ever."""
RECORDED_AT_ONCE = 500
"""Results in a submission: half of what one holds."""


@dataclass(frozen=True, slots=True)
class ProberRules:
    """at_once_max: probes under way. probed_max: endpoints that are probed. allows_local: also on
    loopback and the like.
    """

    at_once_max: int
    probed_max: int
    allows_local: bool


@dataclass(slots=True, eq=False)
class Watched:
    """One endpoint. since_ms: wall clock, when its result became what it is, as seen by this
    leader. error: what the last bad answer was.
    """

    aim: Aim
    health: Health
    due_s: float
    since_ms: int
    error: str = ""
    asked: int = 0
    failed: int = 0
    is_under_way: bool = False


@dataclass(slots=True)
class _Seen:
    """What the watched were made of. version: of the states."""

    version: int = -1
    due_s: float = -math.inf
    probes: dict[ServiceKey, Probe | None] = field(default_factory=dict)


class Prober:
    """The leader's look at the cluster's own endpoints."""

    def __init__(
        self,
        projector: Projector,
        writer: Writer,
        leadership: Leadership,
        doors: tuple[Clock, Chance, Look],
        rules: ProberRules,
    ) -> None:
        self._projector = projector
        self._writer = writer
        self._leadership = leadership
        self._clock, self._chance, self._look = doors
        self._rules = rules
        self._watched: dict[EndpointKey, Watched] = {}
        self._seen = _Seen()
        self._results: dict[EndpointKey, RecordProbe] = {}
        self._under_way = 0
        self.left_out = 0

    @property
    def watched(self) -> Mapping[EndpointKey, Watched]:
        """The endpoints that this meshd probes, or holds; none while another one leads."""
        return self._watched

    async def run(self) -> None:
        """Probe for ever, while this meshd leads."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._clock.sleep(TICK_S)
                if not self._leadership.is_leader:
                    self._forget()
                    continue
                self._refresh()
                for key, watched in self._due():
                    tasks.create_task(self._ask(key, watched))
                await self._record()

    def _forget(self) -> None:
        self._watched, self._seen = {}, _Seen()
        self._results.clear()
        self.left_out = 0

    # Who is asked.

    def _refresh(self) -> None:
        """Follow what services and endpoints have become."""
        state, now_s = self._projector.state(self._projector.own), self._clock.monotonic_s()
        seen = self._seen
        is_same = self._projector.version == seen.version or now_s < seen.due_s
        if is_same or state is None or self._projector.local_head is None:
            return
        seen.version, seen.due_s = self._projector.version, now_s + REFRESH_S
        self._clear_outdated(state)
        own, states = self._projector.own, self._projector.states
        ground = ground_of(own, states, allows_local=self._rules.allows_local)
        before, self._watched, self.left_out = self._watched, {}, 0
        for key, probe in seen.probes.items():
            if probe is not None:
                self._watch(key, state, ground, before)
        self._show()

    def _clear_outdated(self, state: ClusterState) -> None:
        """Have results cleared that are of no probe any more: of services whose probe changed, or,
        since a former leader may not have come to it, of all when this one begins.
        """
        probes = {key: held.value.probe for key, held in state.services.items()}
        known, self._seen.probes = self._seen.probes, probes
        for key in state.endpoints:
            if not known or known.get(key) != probes.get(key):
                self._results.update((command.key, command) for command in outdated(key, state))

    def _watch(
        self,
        service: ServiceKey,
        state: ClusterState,
        ground: Ground,
        before: Mapping[EndpointKey, Watched],
    ) -> None:
        held = state.endpoints_of(service)
        named = ((name, held[name].value) for name in held)
        for name, aim in aims(state.services[service].value, named, ground):
            key = EndpointKey(service, name)
            known = before.get(key)
            if known is not None and known.aim == aim:
                self._watched[key] = known
            elif len(self._watched) < self._rules.probed_max:
                self._watched[key] = self._begin(aim, held[name].value)
            else:
                self.left_out += 1

    def _begin(self, aim: Aim, endpoint: Endpoint) -> Watched:
        is_ours = endpoint.probed_by == aim.mark
        result = endpoint.probed if is_ours else ProbeResult.UNKNOWN
        now_s = self._clock.monotonic_s()
        due_s = now_s + self._chance.uniform(0, aim.probe.interval_s)
        health = Health(result, good_since_s=now_s)
        return Watched(aim, health, due_s, self._clock.wall_ms())

    def _due(self) -> Iterator[tuple[EndpointKey, Watched]]:
        """Those to be asked now, the longest due first, as many as may be under way."""
        now_s = self._clock.monotonic_s()
        due = [
            (watched.due_s, key)
            for key, watched in self._watched.items()
            if watched.due_s <= now_s and not watched.is_under_way and watched.aim.held is None
        ]
        room = max(0, self._rules.at_once_max - self._under_way)
        for _, key in sorted(due)[:room]:
            watched = self._watched[key]
            watched.is_under_way = True
            self._under_way += 1
            yield key, watched

    # What they answer.

    async def _ask(self, key: EndpointKey, watched: Watched) -> None:
        probe = watched.aim.probe
        try:
            error = await self._look(watched.aim.address, watched.aim.port, probe)
        finally:
            self._under_way -= 1
            watched.is_under_way = False
        interval_s = probe.interval_s * self._chance.uniform(1 - JITTER, 1 + JITTER)
        watched.due_s = max(watched.due_s + interval_s, self._clock.monotonic_s())
        if self._watched.get(key) is watched:
            self._take(key, watched, error)

    def _take(self, key: EndpointKey, watched: Watched, error: str) -> None:
        aim, before = watched.aim, watched.health.result
        metrics.PROBES.labels(aim.probe.type, "bad" if error else "good").inc()
        watched.asked += 1
        watched.failed += bool(error)
        watched.error = error or watched.error
        watched.health = answered(
            watched.health,
            aim.probe.rise,
            aim.probe.fall,
            self._clock.monotonic_s(),
            is_good=not error,
        )
        if watched.health.result is not before:
            watched.since_ms = self._clock.wall_ms()
            self._results[key] = RecordProbe(key, aim.address, watched.health.result, aim.mark)
            self._show()

    def _show(self) -> None:
        counts = dict.fromkeys(ProbeResult, 0)
        held = 0
        for watched in self._watched.values():
            held += watched.aim.held is not None
            counts[watched.health.result] += watched.aim.held is None
        for result, count in counts.items():
            metrics.PROBED_ENDPOINTS.labels(result).set(count)
        metrics.PROBES_HELD.set(held + self.left_out)

    async def _record(self) -> None:
        """Note what changed in the log; what can't be noted now is at the next turn."""
        fence = self._leadership.fence()
        if not self._results or fence is None:
            return
        some = list(islice(self._results.values(), RECORDED_AT_ONCE))
        try:
            await self._writer.submit(Submission(tuple(some), ACTOR), fence)
        except GuardError:
            log.info("another meshd leads, and probes for itself")
        except MeshdError as error:
            log.warning("results of probes wait for the own etcd", reason=str(error))
            return
        for command in some:
            if self._results.get(command.key) is command:
                del self._results[command.key]
