"""The first steps of one meshd on its own etcd.

For: waiting for that etcd, seeing to it that it is ours, taking over, and saying who we are. Not
for: the order of start and stop (`run`). Invariant: an etcd that answers and can't be written, such
as a full one, keeps nobody from being served what it holds.
"""

from __future__ import annotations

import asyncio

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)

from meshd.core.standpoint import unwritten
from meshd.daemon.parts import Parts, World, identity_of
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import Descriptor
from meshd.model.command import IntroduceCluster, Submission
from meshd.model.errors import (
    DeniedError,
    FatalError,
    MeshdError,
    NoSpaceError,
    NotFoundError,
    OutcomeUnknownError,
    RejectedError,
    TransientError,
)
from meshd.model.keyspace import Keyspace
from meshd.runtime.bootstrap import ensure_log
from meshd.runtime.node import Node
from meshd.runtime.ports import Kv
from meshd.settings import EtcdSettings, Settings

log = structlog.get_logger(__name__)

UNSAFE_VERSIONS = frozenset({"3.5.0", "3.5.1", "3.5.2"})
"""These can lose acknowledged writes in a crash (design, section 3)."""
ACTOR = "meshd"
INTRODUCE_AGAIN_S_MAX = 10.0
"""How long after the own etcd takes writes again it may take until it is told who we are."""


async def first_look(settings: Settings, world: World) -> Descriptor:
    """Wait for the own etcd and see to it that it is ours, of a safe version, and has a log."""
    log.info(
        "waiting for the own etcd", endpoints=[str(target) for target in settings.etcd.targets]
    )
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((TransientError, OutcomeUnknownError)),
            stop=stop_after_delay(settings.etcd.start_timeout_s),
            wait=wait_fixed(0.2),
            reraise=True,
        ):
            with attempt:
                await _check_version(settings.etcd, world.kv)
                return await ensure_log(
                    world.kv,
                    Keyspace(settings.etcd.prefix),
                    identity_of(settings),
                    world.clock,
                    world.chance,
                )
    except (TransientError, OutcomeUnknownError) as error:
        raise FatalError(
            f"the own etcd gave no answer for {settings.etcd.start_timeout_s:g} s: {error};"
            " check etcd.endpoints and that etcd runs there"
        ) from error
    except NoSpaceError as error:
        raise FatalError(
            f"the own etcd has no space for a log: {error}; compact and defragment it, raise its"
            " quota, and disarm the alarm"
        ) from error
    except DeniedError as error:
        raise FatalError(
            f"the own etcd refuses us: {error}; check etcd.username and TLS"
        ) from error
    raise AssertionError("tenacity ends by returning or raising")


async def _check_version(etcd: EtcdSettings, kv: Kv) -> None:
    try:
        version = (await kv.status()).version
    except DeniedError:
        # If we are refused everything, the next read says so. A version that tells its number to
        # root alone is none of the unsafe ones.
        return
    if version in UNSAFE_VERSIONS and not etcd.allow_unsafe_version:
        raise FatalError(
            f"etcd {version} can lose acknowledged writes in a crash; use 3.4.22 or later, or"
            " 3.5.6 or later, or set etcd.allow_unsafe_version"
        )


async def take_over(parts: Parts) -> None:
    """Stand for election, then serve what the replicas hold before any peer is asked."""
    try:
        await _campaign(parts)
        await parts.load()
    except (TransientError, OutcomeUnknownError, DeniedError, NotFoundError) as error:
        raise FatalError(f"the own etcd failed at the start: {error}") from error


async def _campaign(parts: Parts) -> None:
    try:
        await parts.node.leadership.campaign()
    except NoSpaceError as error:
        # No lease is to be had: nobody leads until there is room, and all the rest goes on.
        log.warning("nobody leads while the own etcd is full", reason=str(error))


async def introduce(settings: Settings, node: Node, tasks: asyncio.TaskGroup) -> None:
    """Say in the log who this cluster is, now or as soon as the own etcd takes it."""
    try:
        await _introduce(settings, node)
    except RejectedError:
        raise
    except MeshdError as error:
        log.warning("what this cluster says of itself waits for the own etcd", reason=str(error))
        tasks.create_task(_introduce_later(settings, node), name="introduce")


async def _introduce(settings: Settings, node: Node) -> None:
    """Say it, with the audiences of the settings unless that is refused: what a log already says
    of its audiences must keep nobody from being served.
    """
    audiences = settings.cluster.audiences
    try:
        await node.writer.submit(_introduction(settings, audiences))
    except RejectedError as error:
        state = node.projector.state(node.projector.own)
        known = state.info.value.audiences if state and state.info else ()
        if known == audiences:
            raise
        await node.writer.submit(_introduction(settings, known))
        log.error(  # noqa: TRY400 the problems say all
            "cluster.audiences is not taken: the export logs go on as they were; take services out"
            " of audiences one by one, then start meshd again",
            wanted=audiences,
            written=known,
            problems=[str(one) for one in error.problems],
        )
    _warn_of_unwritten(node)


def _warn_of_unwritten(node: Node) -> None:
    """Say which services name audiences that aren't written: they are offered to fewer."""
    state = node.projector.state(node.projector.own)
    for audience, keys in sorted(unwritten(state).items() if state else ()):
        log.warning(
            "services name an audience that this cluster doesn't write; nobody gets them by it",
            audience=audience,
            services=len(keys),
            first=str(min(keys)),
            remedy="add it to cluster.audiences, or take it out of the services",
        )


async def _introduce_later(settings: Settings, node: Node) -> None:
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(MeshdError),
        wait=wait_random_exponential(multiplier=0.5, max=INTRODUCE_AGAIN_S_MAX),
        sleep=node.clock.sleep,
    ):
        with attempt:
            await _introduce(settings, node)


def _introduction(settings: Settings, audiences: tuple[str, ...]) -> Submission:
    """What this cluster says of itself, as its settings have it now; what was said of it while it
    ran, such as a drain, stays as it is.
    """
    cluster = settings.cluster
    info = ClusterInfo(
        name=cluster.name,
        id=cluster.id,
        region=cluster.region,
        zone=cluster.zone,
        labels=cluster.labels,
        audiences=audiences,
    )
    return Submission((IntroduceCluster(info),), actor=ACTOR)
