"""`meshd register`: an endpoint that is there as long as a command runs.

For: VMs and bare metal, where nobody else says what runs. Not for: Kubernetes, which says so
itself. Invariants: the command's exit status is this one's; signals go to the command; however this
process ends, the endpoint is gone within its time to live.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import click

from meshd.cli import columns
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.explaining import key_of
from meshd.cli.failure import BadInput, clean
from meshd.cli.output import Output, output_option, show_list
from meshd.cli.reading import namespace_option
from meshd.client import Client
from meshd.client.errors import ClientError
from meshd.client.registrations import PARTS_OF_TTL, Keeper, Kept
from meshd.model.ids import EndpointKey
from meshd.model.registration import TTL_S_DEFAULT, TTL_S_MAX, TTL_S_MIN, Registering
from meshd.model.schema import from_data

SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
SIGNALLED = 128
"""Exit status of a command that a signal ended, as shells have it: with its number added."""
TERMINATE_S = 10.0
"""How long a command may take to end that can't be registered, before it is killed."""
CONNECT_EVERY_S = 0.2
CONNECT_TIMEOUT_S = 2.0


@click.command("registrations")
@namespace_option
@click.option("--service", default="", help="Only those of services of this name.")
@output_option
@pass_connection
def get_registrations(connection: Connection, namespace: str, service: str, output: Output) -> None:
    """Show the cluster's endpoints that are registered with a time to live."""
    items = connection.talk(lambda client: client.registrations(namespace, service))
    show_list(output, items, columns.REGISTRATIONS)


@click.command()
@click.argument("service")
@click.option("--name", default=socket.gethostname, show_default="the host's", help="Its name.")
@click.option("--address", required=True, help="Where it is reached.")
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="[NAME=]NUMBER",
    help="Where it listens; without one as the service says. May be given several times.",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(TTL_S_MIN, TTL_S_MAX),
    default=TTL_S_DEFAULT,
    show_default=True,
    help="Seconds for which it stays when nobody renews it any more.",
)
@click.option("--zone", default="", help="Where it stands, if not where its cluster does.")
@click.option(
    "--holder",
    default="",
    help="Who registers it: another one is refused while this one lives. Its host and name.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="URL",
    help="Another meshd of the same cluster, for when the first is away.",
)
@click.option(
    "--ready-when-connects",
    is_flag=True,
    help="Register once the first port takes connections.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def register(ctx: click.Context, /, **given: object) -> None:
    """Register an endpoint of SERVICE, NAMESPACE/NAME, while COMMAND runs, and end as that ends.

    For example: meshd register shop/web --address 10.0.0.7 --port 8080 -- ./web --listen :8080

    Without COMMAND it is registered until this is stopped.
    """
    wanted = _wanted(given)
    connection: Connection = ctx.obj
    ctx.exit(asyncio.run(_run(connection, wanted)))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the arguments say. connects: where the command must take connections first."""

    kept: Kept
    also: tuple[str, ...]
    command: tuple[str, ...]
    connects: tuple[str, int] | None


def _wanted(given: dict[str, object]) -> _Wanted:
    """Read the arguments; raises RejectedError before anything is started."""
    service, name = key_of(str(given["service"])), str(given["name"]).lower()
    key = EndpointKey.parse(f"{service}/{name}")
    texts = given["ports"]
    ports = [_port(text) for text in texts] if isinstance(texts, tuple) else []
    address = str(given["address"])
    endpoint: dict[str, object] = {"address": address, "ports": ports, "zone": given["zone"]}
    said = {"endpoint": endpoint, "ttl_s": given["ttl_s"], "holder": given["holder"]}
    from_data(Registering, said, "")
    if given["ready_when_connects"] and not ports:
        raise BadInput(("--ready-when-connects needs a --port to connect to",))
    holder = str(given["holder"]) or f"{socket.gethostname()}:{key}"[:128]
    also, command = given["also"], given["command"]
    return _Wanted(
        Kept(service.namespace, service.name, key.name, endpoint, _int(given["ttl_s"]), holder),
        also if isinstance(also, tuple) else (),
        command if isinstance(command, tuple) else (),
        (address, _int(ports[0]["port"])) if given["ready_when_connects"] else None,
    )


def _int(value: object) -> int:
    return int(str(value))


def _port(text: str) -> dict[str, object]:
    name, equals, number = text.rpartition("=")
    if not re.fullmatch(r"[0-9]{1,5}", number):
        raise BadInput((f"--port {text!r} is not [NAME=]NUMBER",))
    return {"port": int(number), "name": name if equals else ""}


async def _run(connection: Connection, wanted: _Wanted) -> int:
    """Run the command, registered; returns its exit status."""
    async with _clients(connection, wanted) as clients:
        keeper = Keeper(clients, wanted.kept, _say)
        process = await _start(wanted.command)
        stop = asyncio.Event()
        with _signals(process, stop):
            try:
                return await _until_it_ends(keeper, wanted, process, stop)
            finally:
                await keeper.end()


async def _until_it_ends(
    keeper: Keeper,
    wanted: _Wanted,
    process: asyncio.subprocess.Process | None,
    stop: asyncio.Event,
) -> int:
    try:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(_keep(keeper, wanted.connects))
            status = await process.wait() if process is not None else await _true(stop)
            keeping.cancel()
    except* ClientError as group:
        await _terminate(process)
        raise _first(group) from None
    return SIGNALLED - status if status < 0 else status


async def _true(stop: asyncio.Event) -> int:
    await stop.wait()
    return 0


def _first(group: BaseExceptionGroup[ClientError]) -> ClientError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _keep(keeper: Keeper, connects: tuple[str, int] | None) -> None:
    while connects is not None and not await _is_open(*connects):  # noqa: ASYNC110 it is elsewhere
        await asyncio.sleep(CONNECT_EVERY_S)
    await keeper.run()


async def _is_open(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


@asynccontextmanager
async def _clients(connection: Connection, wanted: _Wanted) -> AsyncIterator[Sequence[Client]]:
    """One for each meshd. Each is asked once at a time: the next turn may ask another."""
    timeout_s = max(1.0, wanted.kept.ttl_s / PARTS_OF_TTL / 2)
    urls = (connection.url, *wanted.also)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Client(
                    replace(
                        replace(connection, url=url).target(),
                        timeout_s=timeout_s,
                        connect_timeout_s=timeout_s,
                        repeat_for_s=0,
                    )
                )
            )
            for url in urls
        ]


async def _start(command: Sequence[str]) -> asyncio.subprocess.Process | None:
    if not command:
        return None
    try:
        return await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        raise BadInput((f"{command[0]} can't be run: {error.strerror}",)) from None


@contextmanager
def _signals(process: asyncio.subprocess.Process | None, stop: asyncio.Event) -> Iterator[None]:
    """Hand signals on to the command; without one they end this."""

    def hand_on(number: int) -> None:
        if process is None:
            stop.set()
        elif process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, hand_on, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _terminate(process: asyncio.subprocess.Process | None) -> None:
    """End a command that can't be registered, so that it serves nobody unseen."""
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(TERMINATE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _say(what: str) -> None:
    print(f"meshd register: {clean(what)}", file=sys.stderr, flush=True)  # noqa: T201 beside the command's output
