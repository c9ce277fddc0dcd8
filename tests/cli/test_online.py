"""Commands against real meshds."""

import asyncio
from pathlib import Path

import orjson
import pytest
import yaml

from meshd.client import Client, Target
from meshd.client.waiting import wait_until
from tests.cli.conftest import Meshd, Servers, aside

BOUTIQUE = Path(__file__).parents[3] / "shared/data/boutique/kubernetes-manifests.yaml"


def shop(namespace: str) -> str:
    """A service with one endpoint in and one out."""
    return f"""
apiVersion: meshd.io/v1
kind: Service
metadata: {{namespace: {namespace}, name: web, labels: {{team: a}}}}
spec: {{global: true, affinity: local, ports: [{{name: http, port: 80}}]}}
---
apiVersion: meshd.io/v1
kind: Endpoints
metadata: {{namespace: {namespace}, name: web}}
spec:
  endpoints:
    - {{name: a, address: 10.0.0.1, zone: z1}}
    - {{name: b, address: 10.0.0.2, ready: false}}
"""


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own, since all tests share the meshds."""
    name: str = request.node.name
    return name.replace("_", "-")[:60].strip("-[]")


@pytest.fixture
def file(tmp_path: Path, namespace: str) -> str:
    path = tmp_path / "shop.yaml"
    path.write_text(shop(namespace))
    return str(path)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_apply_twice(east: Meshd, file: str, namespace: str) -> None:
    dry = east("apply", "-f", file, "--dry-run")
    told = [line for line in dry.output.splitlines() if not line.startswith("  ")]
    assert '  + labels: {"team":"a"}' in dry.output.splitlines()
    assert told == [
        f"Service {namespace}/web created (dry run)",
        f"Endpoints {namespace}/web created (dry run)",
        "3 events (dry run)",
    ]
    first = east("apply", "-f", file).output.splitlines()
    assert first[:2] == [f"Service {namespace}/web created", f"Endpoints {namespace}/web created"]
    assert first[2].startswith("3 events, now at east:")
    again = east("apply", "-f", file)
    assert f"Service {namespace}/web unchanged\n" in again.output
    assert "\n0 events" in again.output
    assert again.exit_code == 0


def test_apply_shows_json_with_places_in_files(east: Meshd, file: str, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{\n\t"apiVersion": "v1",\n\t"kind": "Secret",\n\t"metadata": {"name": "s"}}')
    result = east("apply", "-f", file, "-f", str(other), "--dry-run", "-o", "json")
    answer = orjson.loads(result.output)
    assert [entry["where"] for entry in answer["applied"]] == [f"{file}:2", f"{file}:7"]
    assert [entry["where"] for entry in answer["ignored"]] == [f"{other}:1"]


def test_apply_with_one_wrong_document_changes_nothing(
    east: Meshd, file: str, tmp_path: Path, namespace: str
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("# a\n\napiVersion: meshd.io/v1\nkind: Service\nspec: {pots: []}\n")
    result = east("apply", "-f", file, "-f", str(wrong))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "Error: 2 problems:",
        f"  {wrong}:3 Service default/ metadata.name: is missing (add it)",
        f"  {wrong}:3 Service default/ spec.pots: unknown field (did you mean ports?)",
    ]
    assert east("get", "services", "-n", namespace, "-o", "json").output == "[]\n"


@pytest.mark.parametrize("text", ["a: [", ""])
def test_what_is_no_manifest_is_bad_input(east: Meshd, text: str) -> None:
    result = east("apply", "-f", "-", input=text)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: standard input")


@pytest.mark.skipif(not BOUTIQUE.exists(), reason=f"{BOUTIQUE} is not on this machine")
def test_the_boutique(east: Meshd) -> None:
    result = east("apply", "-f", str(BOUTIQUE))
    assert result.output.count(" created\n") == 24
    assert "Deployment default/frontend created\n" in result.output
    assert "ServiceAccount frontend ignored: v1 ServiceAccount" in result.output
    assert "0 events" in east("apply", "-f", str(BOUTIQUE)).output


def test_lists_as_tables_json_and_yaml(east: Meshd, file: str, namespace: str) -> None:
    east("apply", "-f", file)
    table = rows(east("get", "services", "-n", namespace).output)
    assert table[0][:3] == ["NAMESPACE", "NAME", "PORTS"]
    assert table[1] == [namespace, "web", "http:80", "yes", "as", "global", "local", "team=a"]
    assert rows(east("service", "list", "-n", namespace).output) == table
    as_json = orjson.loads(east("get", "services", "-n", namespace, "-o", "json").output)
    assert as_json[0]["labels"] == {"team": "a"}
    assert as_json == yaml.safe_load(east("get", "services", "-n", namespace, "-o", "yaml").output)

    table = rows(east("get", "endpoints", "-n", namespace, "--service", "web").output)
    assert table[1][:3] == [f"{namespace}/web", "a", "10.0.0.1"]
    assert table[2][:3] == [f"{namespace}/web", "b", "10.0.0.2"]
    table = rows(east("get", "tables", "-n", namespace).output)
    assert table[1] == [namespace, "web", "http:80", "local", "east", "1/2"]
    answer = orjson.loads(east("get", "tables", "-n", namespace, "-o", "json").output)
    assert answer["perspective"] == "east"
    assert answer["digest"]


def test_an_empty_list_says_so_beside_the_output(east: Meshd) -> None:
    result = east("get", "services", "-n", "nobody")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "there are none\n")


def test_clusters_and_peers(east: Meshd, servers: Servers) -> None:
    servers.converge()
    table = rows(east("get", "clusters").output)
    assert [row[:3] for row in table[1:]] == [["east", "1", "yes"], ["west", "2", "no"]]
    peers = orjson.loads(east("get", "peers", "-o", "json").output)
    assert [peer["name"] for peer in peers] == ["west"]
    assert rows(east("peer", "list").output)[1][0] == "west"
    shown = east("peer", "show", "west").output
    assert "heartbeat age s" in shown
    assert orjson.loads(east("peer", "show", "west", "-o", "json").output)["name"] == "west"
    assert east("peer", "show", "nobody").exit_code == 1


def test_a_service_is_explained(east: Meshd, file: str, namespace: str) -> None:
    east("apply", "-f", file)
    lines = east("service", "show", f"{namespace}/web").output.splitlines()
    fields = {line.split()[0]: line.split()[1] for line in lines[: lines.index("")]}
    assert fields["service"] == f"{namespace}/web"
    assert fields["backends"] == "1/2"
    first, second = lines[-2:]
    assert first.split()[:6] == ["east", "a", "10.0.0.1", "http:80", "0", "100"]
    assert "  in  " in first
    assert "  out: not-ready  " in second
    assert " east:" in second
    assert second.split()[-1].startswith("cli:")
    answer = east("service", "show", f"{namespace}/web", "-o", "json").output
    assert len(orjson.loads(answer)["backends"]) == 2


def test_a_service_is_shown_as_another_cluster_sees_it(
    east: Meshd, servers: Servers, file: str, namespace: str
) -> None:
    for cluster in ("east", "west"):
        east("--url", servers.urls[cluster], "apply", "-f", file)
    servers.converge()
    first: dict[str, list[str]] = {}
    for perspective in ("east", "west"):
        arguments = ["service", "show", f"{namespace}/web", "--perspective", perspective]
        table = orjson.loads(east(*arguments, "-o", "json").output)
        first[perspective] = [
            backend["cluster"] for backend in table["backends"] if backend["priority"] == 0
        ]
    assert first == {"east": ["east", "east"], "west": ["west", "west"]}


def test_a_conflict_is_shown(
    east: Meshd, servers: Servers, namespace: str, file: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(shop(namespace).replace("port: 80", "port: 81"))
    east("apply", "-f", file)
    east("--url", servers.urls["west"], "apply", "-f", str(other))
    servers.converge()
    assert (
        "\ncondition  PortsConflict: west: " in east("service", "show", f"{namespace}/web").output
    )
    assert "PortsConflict (west)" in east("get", "tables", "-n", namespace).output


def test_why_a_service_is_as_it_is(east: Meshd, file: str, namespace: str) -> None:
    east("apply", "-f", file)
    text = east("service", "explain", f"{namespace}/web").output
    assert f"service  {namespace}/web, as east sees it" in text
    assert "the own cluster first (affinity local)" in text
    assert "50 % healthy, below 70 %" in text
    assert f"endpoint.set {namespace}/web/b east:" in text
    answer = orjson.loads(east("service", "explain", f"{namespace}/web", "-o", "json").output)
    assert [one["reason"] for one in answer["endpoints"]] == [None, "not-ready"]


def test_the_slots_of_a_service(east: Meshd, file: str, namespace: str) -> None:
    east("apply", "-f", file)
    table = rows(east("service", "slots", f"{namespace}/web", "--size", "251").output)
    assert table[1:] == [["east", "a", "10.0.0.1", "251"]]
    answer = orjson.loads(east("service", "slots", f"{namespace}/web", "-o", "json").output)
    assert set(answer["slots"]) == {0}


@pytest.mark.parametrize("name", ["nobody", "a/nobody"])
def test_a_service_that_is_not_there_is_a_failure(east: Meshd, name: str) -> None:
    result = east("service", "show", name)
    assert result.exit_code == 1
    assert "(404)" in result.stderr


def test_what_is_no_name_is_bad_input(east: Meshd) -> None:
    result = east("service", "show", "A/B/C")
    assert result.exit_code == 2
    assert "namespace/name" in result.stderr


def test_status(east: Meshd, servers: Servers) -> None:
    text = east("status", "--wait").output
    fields = dict(line.split(maxsplit=1) for line in text.partition("\n\n")[0].splitlines())
    assert fields["cluster"] == "east (id 1)"
    assert fields["ready"] == "yes"
    assert "east:" in fields["vector"]
    assert "NAME  PHASE" in text
    as_json = orjson.loads(east("status", "-o", "json").output)
    as_yaml = yaml.safe_load(east("status", "-o", "yaml").output)
    assert as_json["cluster"] == as_yaml["cluster"] == "east"


def test_events_of_a_log(east: Meshd, file: str, namespace: str) -> None:
    before = orjson.loads(east("status", "-o", "json").output)["local"]["seq"]
    east("apply", "-f", file)
    arguments = ["get", "events", "--after", str(before)]
    page = orjson.loads(east(*arguments, "-o", "json").output)
    assert [event["subject"] for event in page["items"]] == [
        f"{namespace}/web",
        f"{namespace}/web/a",
        f"{namespace}/web/b",
    ]
    only = rows(east(*arguments, "--type", "service.set").output)
    assert [row[3:5] for row in only[1:]] == [["service.set", f"{namespace}/web"]]
    part = east(*arguments, "--limit", "1")
    assert part.stderr == f"there are more: --after {before + 1}\n"


def test_tail_from_a_place(east: Meshd, file: str, namespace: str) -> None:
    after = orjson.loads(east("status", "-o", "json").output)["events_after"]
    east("apply", "-f", file)
    arguments = ["events", "tail", "--after", after, "--cluster", "east", "-n", "3"]
    lines = east(*arguments).output.splitlines()
    assert [line.split()[2:4] for line in lines] == [
        ["service.set", f"{namespace}/web"],
        ["endpoint.set", f"{namespace}/web/a"],
        ["endpoint.set", f"{namespace}/web/b"],
    ]
    as_json = [orjson.loads(line) for line in east(*arguments, "-o", "json").output.splitlines()]
    as_yaml = list(yaml.safe_load_all(east(*arguments, "-o", "yaml").output))
    assert as_json == as_yaml
    assert [event["subject"] for event in as_json] == [line.split()[3] for line in lines]


def test_tail_from_the_beginning(east: Meshd) -> None:
    result = east("events", "tail", "--from", "beginning", "--cluster", "east", "-n", "1")
    assert result.output.split()[1:4] == ["east:1", "cluster.set", "east"]


def test_tail_of_a_snapshot_and_of_what_is_chosen(east: Meshd, file: str, namespace: str) -> None:
    east("apply", "-f", file)
    chosen = ("--namespace", namespace, "--type", "endpoint.set")
    snapshot = east("events", "tail", "--from", "snapshot", "--cluster", "east", *chosen, "-n", "2")
    expected = [["endpoint.set", f"{namespace}/web/{name}"] for name in "ab"]
    assert [line.split()[2:4] for line in snapshot.stdout.splitlines()] == expected
    assert snapshot.stderr.startswith('meshd.snapshot.begin: {"clusters":["east"]}')
    since = east("events", "tail", "--since", "2020-01-01T00:00:00Z", *chosen, "-n", "2")
    assert since.stdout == snapshot.stdout
    listed = east("get", "events", *chosen, "--service", f"{namespace}/web", "-o", "json")
    assert [item["subject"] for item in orjson.loads(listed.output)["items"]] == [
        subject for _, subject in expected
    ]
    refused = east("events", "tail", "--type", "gadget.set")
    assert refused.exit_code == 2
    assert "service.removed" in refused.stderr


def test_tail_goes_on_where_a_place_is_gone_if_that_is_wanted(east: Meshd) -> None:
    arguments = ("events", "tail", "--after", f"east:{'0' * 32}:1", "--resets", "-n", "1")
    result = east(*arguments)
    assert result.exit_code == 0
    assert result.stderr.startswith("meshd.reset: ")
    assert "\nmeshd.snapshot.begin: " in result.stderr
    assert result.stdout


def test_a_place_of_another_history_is_told(east: Meshd) -> None:
    result = east("events", "tail", "--after", f"east:{'0' * 32}:1")
    assert result.exit_code == 1
    assert "(410)" in result.stderr


def test_a_peer_is_paused_resumed_and_resynced_by_name(east: Meshd) -> None:
    for action in ("pause", "resume", "resync"):
        result = east("peer", action, "west")
        assert result.exit_code == 0
        assert f"west: {action} asked for" in result.output
    unknown = east("peer", "pause", "mars")
    assert unknown.exit_code == 1
    assert "there is no cluster 'mars' here" in unknown.output


def test_a_peer_is_added_changed_and_removed_by_name(east: Meshd) -> None:
    options = (
        *("--endpoint", "south-1:2379", "--endpoint", "south-2:2379", "--announces", "10.3.0.0/16"),
        *("--audience", "eu", "--staleness", "withdraw", "--stale-after", "20"),
    )
    added = east("peer", "add", "south", *options)
    assert added.exit_code == 0, added.output
    assert added.output.startswith("south is followed, now at east:")
    assert east("peer", "add", "south", *options).output == "south is followed like that already\n"
    told = orjson.loads(east("get", "events", "--type", "peer.set", "-o", "json").output)
    assert told["items"][-1]["data"] == {
        "endpoints": ["south-1:2379", "south-2:2379"],
        "audience": "eu",
        "staleness": {"policy": "withdraw", "stale_after_s": 20.0},
        "announces": ["10.3.0.0/16"],
    }
    removed = east("peer", "remove", "south")
    assert removed.output.startswith("south is removed, now at east:")
    assert east("peer", "remove", "south").exit_code == 1


def test_files_of_a_peer_are_named_as_they_are_on_the_servers_host(east: Meshd) -> None:
    tls = ("--ca-file", "ca.pem", "--server-name", "etcd.south")
    result = east("peer", "add", "south", "--endpoint", "south:2379", *tls)
    assert result.exit_code == 2
    assert "tls.ca_file: is not an absolute path on meshd's host" in result.stderr
    missing = east("peer", "add", "south", "--endpoint", "south:2379", "--ca-file", "/no/ca.pem")
    assert missing.exit_code == 2
    assert "set replication.listed_files_dir" in missing.stderr


def test_only_what_is_stopped_is_passed_over(east: Meshd) -> None:
    result = east("peer", "skip", "west", "--seq", "7")
    assert result.exit_code == 1
    assert "west is not Quarantined" in result.stderr
    assert east("peer", "skip", "nobody").exit_code == 1
    refused = east("peer", "add", "west", "--endpoint", "elsewhere:2379")
    assert refused.exit_code == 1
    assert "change the settings file and reload" in refused.stderr


def test_registrations_and_probes_are_listed(
    servers: Servers, meshd: Meshd, namespace: str, tmp_path: Path
) -> None:
    path = tmp_path / "probed.yaml"
    path.write_text(
        shop(namespace).replace("ports:", "probe: {type: http, interval_s: 60.0}, ports:", 1)
    )
    east = ("--url", servers.urls["east"])
    assert meshd(*east, "apply", "-f", str(path)).exit_code == 0

    async def register() -> None:
        async with Client(Target(url=servers.urls["east"])) as client:
            said = {"endpoint": {"address": "10.0.0.7"}, "ttl_s": 60, "holder": "me"}
            await client.register(namespace, "web", "vm", said)

            async def ask() -> int:
                return len(await client.registrations(namespace))

            await wait_until(ask, bool, what="the registration", timeout_s=10)

    aside(lambda: asyncio.run(register()))
    listed = meshd(*east, "get", "registrations", "-n", namespace).output
    assert listed.splitlines()[1].split()[:5] == [namespace, "web", "vm", "60", "s"]
    probes = meshd(*east, "probe", "list", "-n", namespace, "-o", "json").output
    items = [(item["name"], item["result"]) for item in orjson.loads(probes)["items"]]
    assert items == [("a", "unknown"), ("b", "unknown"), ("vm", "unknown")]
    assert "http" in meshd(*east, "probe", "list", "-n", namespace).output
