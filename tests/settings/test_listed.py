"""Peers that the log lists, held to the rules of the settings; and what two settings differ in."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName
from meshd.model.listed import ListedPeer, ListedTls
from meshd.model.staleness import Staleness, StalenessPolicy
from meshd.settings import Settings, load
from meshd.settings.changes import changed_but_peers
from meshd.settings.listed import peer_settings

B = ClusterName("b")
ENDPOINTS = ("10.2.0.1:2379",)


def settings_of(*overrides: str) -> Settings:
    return load(None, {}, ("cluster.name=east", "cluster.id=1", *overrides))


EAST = settings_of("peers=[{name: west, endpoints: ['10.1.0.1:2379']}]")


def problems_of(
    peer: ListedPeer, name: ClusterName = B, files_dir: Path | None = None
) -> dict[str, str]:
    with pytest.raises(RejectedError) as caught:
        peer_settings(name, peer, EAST, EAST.peers, files_dir)
    return {
        problem.where: f"{problem.what} ({problem.remedy})" for problem in caught.value.problems
    }


def test_it_is_what_a_file_would_have_made_it() -> None:
    peer = ListedPeer(
        endpoints=("10.2.0.1:2379", "[::1]:2379"),
        staleness=Staleness(policy=StalenessPolicy.KEEP, stale_after_s=5.0),
        audience="eu",
        prefix="/other",
        announces=("10.2.0.0/16",),
    )
    text = (
        "peers=[{name: b, endpoints: ['10.2.0.1:2379', '[::1]:2379'], audience: eu, prefix: /other,"
        " staleness: {policy: keep, stale_after_s: 5.0}, announces: [10.2.0.0/16]}]"
    )
    assert (peer_settings(B, peer, EAST, EAST.peers, None),) == settings_of(text).peers


def test_other_peers_are_called_by_their_names() -> None:
    taken = problems_of(ListedPeer(endpoints=("10.1.0.1:2379",)))
    assert taken == {
        "endpoints[0]": "10.1.0.1:2379 belongs to peer west already (correct one of them)"
    }
    west = problems_of(ListedPeer(endpoints=ENDPOINTS), name=ClusterName("west"))
    assert west == {"name": "peer west has the same name (remove one)"}


def test_what_only_the_settings_know_of_is_checked_too() -> None:
    assert problems_of(ListedPeer(endpoints=("host:99999",))).keys() == {"endpoints[0]"}
    assert problems_of(ListedPeer(endpoints=ENDPOINTS, announces=("10.1.0.1/8",))).keys() == {
        "announces[0]"
    }
    tls = problems_of(ListedPeer(endpoints=ENDPOINTS, tls=ListedTls(server_name="x")))
    assert tls == {"tls.ca_file": "is missing (add who signs the etcd's certificate)"}
    user = problems_of(ListedPeer(endpoints=ENDPOINTS, username="u"))
    assert user == {
        "username": "has neither a password nor a client certificate (set password_file or"
        " tls.cert_file)"
    }


def test_files_may_be_held_to_one_folder_wherever_links_lead(tmp_path: Path) -> None:
    inside, outside = tmp_path / "peers", tmp_path / "token"
    inside.mkdir()
    outside.write_text("secret")
    (inside / "password").write_text("secret")
    (inside / "link").symlink_to(outside)
    for name in ("link", "../token"):
        peer = ListedPeer(endpoints=ENDPOINTS, username="u", password_file=f"{inside}/{name}")
        assert problems_of(peer, files_dir=inside).keys() == {"password_file"}
        assert "may name none" in problems_of(peer, files_dir=None)["password_file"]
        assert peer_settings(B, peer, EAST, (), tmp_path).username == "u"
    good = ListedPeer(endpoints=ENDPOINTS, username="u", password_file=f"{inside}/password")
    assert peer_settings(B, good, EAST, (), inside).password_file == inside / "password"


def test_a_file_that_cannot_be_looked_at_is_a_problem_like_any_other() -> None:
    long = "/" + "x" * 300
    peer = ListedPeer(endpoints=ENDPOINTS, username="u", password_file=long)
    said = problems_of(peer, files_dir=Path("/"))
    assert "can't be looked at" in said["password_file"]


def test_what_differs_is_named_but_for_the_peers_and_without_values() -> None:
    other = settings_of("writer.queue_max=7", "etcd.username=", "cluster.zone=z", "log.level=debug")
    assert changed_but_peers(EAST, other) == (
        "cluster.zone",
        "writer.queue_max",
        "log.level",
    )
    assert changed_but_peers(EAST, settings_of()) == ()
