"""`meshd verify` against real meshds."""

from __future__ import annotations

import orjson
import yaml

from tests.cli.conftest import Meshd, Servers


def test_agreement_as_a_table(east: Meshd, servers: Servers) -> None:
    servers.converge()
    result = east("verify", "--wait", "--timeout", "30")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == [
        *("CLUSTER", "VERDICT", "HEARD", "READ", "OF", "east", "READ", "OF", "west"),
        *("BEHIND", "DIGEST"),
    ]
    assert [line.split()[:2] for line in lines[1:3]] == [["east", "asked"], ["west", "agrees"]]
    assert lines[-1] == "2 clusters agree"


def test_agreement_of_several_that_are_asked(east: Meshd, servers: Servers) -> None:
    servers.converge()
    urls = ("--also", servers.urls["west"])
    result = east("verify", *urls, "--wait")
    assert result.exit_code == 0, result.output
    assert "asked east:" in result.output
    assert "asked west:" in result.output
    assert "the table as east sees it: east, west agree" in result.output
    assert "the table as west sees it: east, west agree" in result.output
    for kind, read in (("json", orjson.loads), ("yaml", yaml.safe_load)):
        result = east("verify", *urls, "--wait", "-o", kind)
        answer = read(result.stdout)
        assert answer["agrees"]
        assert (answer["differs"], answer["missing"]) == ({}, [])
        assert [report["cluster"] for report in answer["reports"]] == ["east", "west"]
        assert [match["perspective"] for match in answer["compared"]] == ["east", "west"]


def test_a_paused_peer_is_unknown_and_the_exit_status_says_so(
    east: Meshd, servers: Servers
) -> None:
    servers.converge()
    assert east("peer", "pause", "west").exit_code == 0
    try:
        # The pause is asked for, and done a moment later.
        while "Paused" not in east("get", "peers").output:
            pass
        result = east("verify")
        assert result.exit_code == 1
        assert "west: it is Paused here" in result.output
        assert "clusters agree" not in result.output
        waited = east("verify", "--wait", "--timeout", "0.1", "--max-lag-events", "1000")
        assert waited.exit_code == 1
    finally:
        assert east("peer", "resume", "west").exit_code == 0
    again = east("verify", "--wait", "--max-lag-events", "1000")
    assert again.exit_code == 0, again.output
    assert "2 clusters agree or are behind within the limits" in again.output


def test_who_can_not_be_asked_ends_it(east: Meshd) -> None:
    result = east("verify", "--also", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "can't be reached" in result.stderr
