"""`meshd verify`: whether all clusters agree, and who is behind whom.

For: asking one meshd or several, once or until it is so, and showing what they say. Not for:
judging it (`agreeing`). Invariant: nothing is changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import click

from meshd.cli.agreeing import Judgement, Limits, Match, lag_text
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.output import Column, Output, output_option, print_table, show_data
from meshd.client import Agreement, Client, ClientError, StandpointItem

FAILED = 1
POLL_S = 0.5
"""How often to ask again: twice for each heartbeat at its default."""
DIGEST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Seen:
    """The last reports, and what all of them come to."""

    reports: Sequence[Agreement]
    matches: Sequence[Match]
    judgement: Judgement


@click.command()
@click.option(
    "--also",
    "urls",
    multiple=True,
    metavar="URL",
    help="Another cluster's meshd to ask directly, with the same token and certificates. May be"
    " given several times.",
)
@click.option(
    "--wait", "is_waiting", is_flag=True, help="Ask until every cluster could be compared."
)
@click.option(
    "--timeout",
    "timeout_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long to wait, in seconds.",
)
@click.option(
    "--max-lag-events",
    type=click.IntRange(min=0),
    help="Clusters may be behind by so many events in each log.",
)
@click.option(
    "--max-lag-s",
    type=click.FloatRange(min=0),
    help="Clusters may lack events that are so old, in seconds; of an unknown age they may not.",
)
@output_option
@pass_connection
@click.pass_context
def verify(  # noqa: PLR0913, PLR0917 one for each option
    ctx: click.Context,
    connection: Connection,
    urls: Sequence[str],
    is_waiting: bool,
    timeout_s: float,
    max_lag_events: int | None,
    max_lag_s: float | None,
    output: Output,
) -> None:
    """Show the vectors and digests of all clusters side by side, and who is behind whom.

    One meshd compares the digest that each cluster last published with the one that it derives
    itself for that cluster, where both have read the same. --also asks other clusters' meshds too
    and compares what all of them derive for each other.

    Exit status 0: all agree, or are behind within the limits that are given. 1: a digest differs, a
    cluster is unknown, behind beyond the limits, or could not be compared.
    """
    asked = [connection, *(replace(connection, url=url) for url in urls)]
    judgement = Judgement(Limits(max_lag_events, max_lag_s))
    seen = asyncio.run(_ask(asked, judgement, timeout_s if is_waiting else 0.0))
    if output is Output.TABLE:
        _print(seen)
    else:
        show_data(output, _data(seen))
    if not judgement.is_agreement:
        ctx.exit(FAILED)


async def _ask(asked: Sequence[Connection], judgement: Judgement, timeout_s: float) -> Seen:
    """Ask until it is agreement, can't become any, or time is up."""
    began_s = time.monotonic()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(one.target())) for one in asked]
        while True:
            reports = await _reports(clients)
            waited_s = time.monotonic() - began_s
            seen = Seen(reports, judgement.take(reports, waited_s), judgement)
            if judgement.is_agreement or judgement.differs or waited_s >= timeout_s:
                return seen
            await asyncio.sleep(min(POLL_S, timeout_s - waited_s))


async def _reports(clients: Sequence[Client]) -> list[Agreement]:
    """What all of them say at about the same time; raises ClientError if one says nothing."""
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(_report(client)) for client in clients]
    reports = []
    for task in asking:
        answer = task.result()
        if isinstance(answer, ClientError):
            raise answer
        reports.append(answer)
    return reports


async def _report(client: Client) -> Agreement | ClientError:
    try:
        return await client.verify()
    except ClientError as error:
        return error


def _data(seen: Seen) -> dict[str, object]:
    """All that was said, as it was said, and what it comes to."""
    return {
        "agrees": seen.judgement.is_agreement,
        "differs": seen.judgement.differs,
        "missing": seen.judgement.missing,
        "compared": [
            {
                "perspective": match.perspective,
                "vector_text": match.vector_text,
                "agrees": match.agrees,
                "said": dict(match.said),
            }
            for match in seen.matches
        ],
        "reports": list(seen.reports),
    }


def _print(seen: Seen) -> None:
    for report in seen.reports:
        if len(seen.reports) > 1:
            click.echo(f"asked {report['cluster']}:")
        _print_report(report)
        click.echo()
    for match in seen.matches:
        names = ", ".join(name for name, _ in match.said)
        verdict = "agree" if match.agrees else "DIFFER"
        click.echo(f"the table as {match.perspective} sees it: {names} {verdict}")
    for name, reason in seen.judgement.differs.items():
        click.echo(f"DIFFERS: {name}: {reason}")
    for text in seen.judgement.missing:
        click.echo(text)
    if seen.judgement.is_agreement:
        clusters = max((len(report["clusters"]) for report in seen.reports), default=0)
        allowed = " or are behind within the limits" if seen.judgement.limits.are_given else ""
        click.echo(f"{clusters} clusters agree{allowed}" if clusters > 1 else "it is alone")


def _print_report(report: Agreement) -> None:
    names = sorted({name for one in report["clusters"] for name in one["vector"] or ()})
    columns = [
        Column("CLUSTER", lambda one: one["name"]),
        Column("VERDICT", _verdict),
        Column("HEARD", lambda one: None if one["age_s"] is None else f"{one['age_s']:.1f} s ago"),
        *(Column(f"READ OF {name}", _place_of(name, report)) for name in names),
        Column("BEHIND", lambda one: lag_text(one) or None),
        Column("DIGEST", lambda one: one["digest"] and one["digest"][:DIGEST_SHOWN]),
    ]
    print_table(report["clusters"], columns)


def _verdict(one: StandpointItem) -> str:
    return "asked" if one["self"] else one["verdict"]


def _place_of(name: str, report: Agreement) -> Callable[[StandpointItem], str | None]:
    """How far a cluster has read the log of `name`; of another log than most it is said."""
    here = (report["clusters"][0]["vector"] or {}).get(name)

    def cell(one: StandpointItem) -> str | None:
        at = (one["vector"] or {}).get(name)
        if at is None:
            return None
        is_same = here is None or at["log_id"] == here["log_id"]
        return str(at["seq"]) if is_same else f"{at['seq']} of {at['log_id'][:8]}"

    return cell
