"""`meshd policy list|show|check|matrix`: who may talk to whom.

For: looking at policies and at what comes of them. Not for: setting them; `meshd apply` does.
Invariant: nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

from meshd.cli import columns
from meshd.cli.as_of import as_of_option
from meshd.cli.connection import Connection, pass_connection
from meshd.cli.output import (
    Output,
    output_option,
    print_fields,
    print_table,
    show_data,
    show_list,
)
from meshd.cli.placing import cluster_option, label_option
from meshd.client.policies import Cell, Check, ClassItem, MatrixPage, PartyItem, PolicyItem
from meshd.core.judge import Verdict
from meshd.model.ids import PolicyKey
from meshd.model.policy import NAMESPACE_LABEL
from meshd.model.service import Transport

STATUSES: Mapping[str, int] = {
    Verdict.ALLOWED: 0,
    Verdict.DENIED: 1,
    Verdict.CONDITIONAL: 3,
    Verdict.UNKNOWN: 3,
}
"""What `check` exits with: 1 as a search that finds nothing, 3 where nobody here can decide."""


@click.group()
def policy() -> None:
    """Look at policies, and at who may talk to whom."""


@policy.command("list")
@cluster_option
@click.option("-n", "--namespace", default="", help="Only those of this namespace.")
@label_option
@as_of_option
@output_option
@pass_connection
def list_policies(
    connection: Connection,
    cluster: str,
    namespace: str,
    labels: Sequence[str],
    as_of: str,
    output: Output,
) -> None:
    """Show a cluster's policies."""
    items = connection.talk(
        lambda client: client.policies(
            cluster=cluster, namespace=namespace, labels=labels, as_of=as_of
        )
    )
    show_list(output, items, columns.POLICIES)


@policy.command("show")
@click.argument("name")
@as_of_option
@output_option
@pass_connection
def show_policy(connection: Connection, name: str, as_of: str, output: Output) -> None:
    """Show one of the cluster's own policies, NAMESPACE/NAME."""
    key = PolicyKey.parse(name if "/" in name else f"default/{name}")
    found = connection.talk(lambda client: client.policy(key.namespace, key.name, as_of=as_of))
    if output is not Output.TABLE:
        show_data(output, found)
        return
    print_fields(
        {
            "policy": f"{found['namespace']}/{found['name']}",
            "subjects": selector_text(found["subjects"]) or "all of the namespace",
            "isolates": found["directions"],
            "labels": found["labels"],
            "audiences": found["audiences"],
            "made by": columns.origin_text(found["origin"]),
        }
    )
    for condition in found["conditions"]:
        print_fields({"condition": f"{condition['type']}: {condition['message']}"})
    rows = list(_rules(found))
    if rows:
        click.echo()
        print_table(rows, columns.POLICY_RULES)


def _rules(found: PolicyItem) -> Iterator[tuple[str, int, str, str, str]]:
    for direction in ("ingress", "egress"):
        rules = found["ingress"] if direction == "ingress" else found["egress"]
        for number, rule in enumerate(rules):
            peers = "; ".join(map(peer_text, rule["peers"])) or "everybody"
            ports = ", ".join(map(_port_text, rule["ports"])) or "all"
            yield direction, number, peers, ports, "; ".join(map(_http_text, rule["http"]))


def selector_text(selector: Mapping[str, object]) -> str:
    """A selector of labels, for people: `app=web, tier In (a, b)`."""
    labels, expressions = selector["labels"], selector["expressions"]
    if not isinstance(labels, Mapping) or not isinstance(expressions, list):
        return ""
    parts = [f"{name}={value}" for name, value in labels.items()]
    for one in expressions:
        values = f" ({', '.join(one['values'])})" if one["values"] else ""
        parts.append(f"{one['key']} {one['operator']}{values}")
    return ", ".join(parts)


def peer_text(peer: Mapping[str, object]) -> str:
    """A rule's peer, for people."""
    if peer["dns"]:
        return str(peer["dns"])
    if peer["cidr"]:
        but = peer["except"]
        left = f" but {', '.join(but)}" if isinstance(but, list) and but else ""
        return f"{peer['cidr']}{left}"
    labels, namespaces, clusters = (peer[name] for name in ("labels", "namespaces", "clusters"))
    parts = [(selector_text(labels) if isinstance(labels, Mapping) else "") or "all"]
    if isinstance(namespaces, Mapping):
        names = ", ".join(namespaces["names"])
        told = ", ".join(part for part in (names, selector_text(namespaces)) if part)
        parts.append(f"of namespaces {told}" if told else "of all namespaces")
    if isinstance(clusters, Mapping):
        told = "; ".join(f"{name} {', '.join(value)}" for name, value in clusters.items() if value)
        parts.append(f"of clusters {told}" if told else "of all clusters")
    return " ".join(parts)


def _port_text(port: Mapping[str, object]) -> str:
    number = port["name"] or port["port"]
    if number is None or number == "":
        return str(port["protocol"])
    last = f"-{port['end_port']}" if port["end_port"] else ""
    return f"{port['protocol']}/{number}{last}"


def _http_text(match: Mapping[str, object]) -> str:
    methods = match["methods"]
    told = ",".join(methods) if isinstance(methods, list) and methods else "any method"
    return f"{told} {match['path']} ({match['match']})"


@policy.command("check")
@click.option("--from", "source", required=True, metavar="WHO", help="Who begins the connection.")
@click.option("--to", "destination", required=True, metavar="WHO:PORT", help="Whom it is for.")
@click.option(
    "--protocol",
    type=click.Choice([str(one) for one in Transport]),
    default=str(Transport.TCP),
    show_default=True,
)
@as_of_option
@output_option
@pass_connection
@click.pass_context
def check(  # noqa: PLR0913, PLR0917 one for each option
    ctx: click.Context,
    connection: Connection,
    source: str,
    destination: str,
    protocol: str,
    as_of: str,
    output: Output,
) -> None:
    """Say whether one may talk to another, by which rules, and from which events.

    WHO is a service or workload, NAMESPACE/NAME@CLUSTER; labels, NAMESPACE/LABEL=VALUE@CLUSTER; an
    identity's number; or an address or DNS name outside of the mesh. Without @CLUSTER it is the
    asked one's.

    Exit status 0 if it is allowed, 1 if it is denied, 3 if that can't be told here: nothing is
    known of a cluster, or only who reads HTTP or resolves names can judge.
    """
    found = connection.talk(
        lambda client: client.policy_check(source, destination, protocol=protocol, as_of=as_of)
    )
    if output is Output.TABLE:
        _print_check(found)
    else:
        show_data(output, found)
    ctx.exit(STATUSES.get(found["verdict"], 3))


def _print_check(found: Check) -> None:
    print_fields(
        {
            "verdict": found["verdict"],
            "from": [_party_text(party) for party in found["from"]],
            "to": [_party_text(party) for party in found["to"]],
            "port": f"{found['protocol']}/{found['port']}",
        }
    )
    click.echo()
    print_table(found["sides"], columns.SIDES)
    for note in found["notes"]:
        print_fields({"note": note})
    if found["stale"]:
        print_fields(
            {"out of sight": f"{', '.join(found['stale'])}: policies may be others by now"}
        )


def _party_text(party: PartyItem) -> str:
    if party["cluster"] is None:
        return str(party["address"] or party["name"])
    number = "" if party["number"] is None else f" ({party['number']})"
    return f"{labels_text(party['labels'])}@{party['cluster']}{number}"


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels of an identity, its namespace first: `shop/app=web,tier=front`."""
    rest = ",".join(f"{name}={value}" for name, value in labels.items() if name != NAMESPACE_LABEL)
    return f"{labels.get(NAMESPACE_LABEL, '')}/{rest}"


@policy.command("matrix")
@click.option("-n", "--namespace", default="", help="Only among identities of this namespace.")
@click.option("--from-namespace", default="", help="Only from identities of this namespace.")
@click.option("--from-cluster", default="", help="Only from identities of this cluster.")
@click.option("--to-namespace", default="", help="Only to identities of this namespace.")
@click.option("--to-cluster", default="", help="Only to identities of this cluster.")
@click.option("--limit", default=10_000, show_default=True, help="Show so many lines at most.")
@as_of_option
@output_option
@pass_connection
def matrix(  # noqa: PLR0913, PLR0917 one for each option
    connection: Connection,
    namespace: str,
    from_namespace: str,
    from_cluster: str,
    to_namespace: str,
    to_cluster: str,
    limit: int,
    as_of: str,
    output: Output,
) -> None:
    """Print who may talk to whom, and on which ports. Pairs that may not at all are left out;
    identities that no policy can tell apart are one line.
    """
    query = {
        "from_namespace": from_namespace or namespace,
        "from_cluster": from_cluster,
        "to_namespace": to_namespace or namespace,
        "to_cluster": to_cluster,
        "limit": str(limit),
        "as_of": as_of,
    }
    page: MatrixPage = connection.talk(lambda client: client.policy_matrix(**query))
    if output is not Output.TABLE:
        show_data(output, page)
        return
    show_list(output, [_row(cell) for cell in page["items"]], columns.MATRIX)
    if page["next"] is not None:
        left = page["sources"] - page["next"]
        click.echo(f"and {left} of {page['sources']} sources more: narrow it, or -o json", err=True)
    for name in page["unknown"]:
        click.echo(f"nothing is known of {name}", err=True)


def _row(cell: Cell) -> tuple[str, str, Sequence[str], Sequence[str]]:
    return class_text(cell["from"]), class_text(cell["to"]), cell["ports"], cell["conditional"]


def class_text(one: ClassItem) -> str:
    """Identities that no policy can tell apart: one of them, and how many more."""
    more = f" and {one['count'] - 1} more" if one["count"] > 1 else ""
    return f"{labels_text(one['labels'])}@{one['cluster']}{more}"
