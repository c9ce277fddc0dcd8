"""A mesh file: everything that is wrong with it at once, and no value becomes a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.mesh.mesh_file import MeshFileError, Target, Verb, argv, read_mesh_file

Json = dict[str, Any]


def tree() -> Json:
    return {
        "clusters": [
            {
                "name": name,
                "id": number,
                "values": {"host": f"{name}.example"},
                "meshds": [{"name": "meshd-1", "url": f"https://{name}.example:7979"}],
                "etcds": [{"name": "etcd-1", "values": {"unit": "etcd@1"}}],
            }
            for number, name in enumerate(("east", "west"), start=1)
        ],
        "allowed": {"servers": ["west/meshd-1", "west/etcd-1"], "links": [["east", "west"]]},
        "commands": {
            "meshd": {
                "kill": "ssh {host} systemctl kill -s KILL meshd",
                "start": "ssh {host} systemctl start meshd",
            },
            "etcd": {"freeze": "ssh {host} kill -STOP {unit}", "thaw": "ssh {host} true"},
            "link": {"cut": "cut {host} {peer_host} {cluster}-{peer}", "heal": "heal {peer}"},
        },
    }


def written(folder: Path, content: Any) -> Path:
    path = folder / "mesh.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def at(content: Json, *path: Any) -> Json:
    for part in path:
        content = content[part]
    return content


def test_a_command_is_put_together_of_words(tmp_path: Path) -> None:
    file = read_mesh_file(written(tmp_path, tree()))
    kill = argv(file, Verb.KILL, Target.of_server("west/meshd-1"))
    assert kill == ("ssh", "west.example", "systemctl", "kill", "-s", "KILL", "meshd")
    freeze = argv(file, Verb.FREEZE, Target.of_server("west/etcd-1"))
    assert freeze == ("ssh", "west.example", "kill", "-STOP", "etcd@1")
    cut = argv(file, Verb.CUT, Target("east", peer="west"))
    assert cut == ("cut", "east.example", "west.example", "east-west")
    assert argv(file, Verb.STOP, Target.of_server("west/meshd-1")) == ()


def test_no_value_becomes_another_word_and_other_braces_stay(tmp_path: Path) -> None:
    content = tree()
    at(content, "clusters", 1, "values")["host"] = "a b; rm -rf / $(x)"
    content["commands"]["meshd"]["kill"] = "kubectl get -o jsonpath={.items[0]} {host} '{host} too'"
    file = read_mesh_file(written(tmp_path, content))
    assert argv(file, Verb.KILL, Target.of_server("west/meshd-1")) == (
        *("kubectl", "get", "-o", "jsonpath={.items[0]}"),
        *("a b; rm -rf / $(x)", "a b; rm -rf / $(x) too"),
    )


def _without_start(content: Json) -> None:
    del content["commands"]["meshd"]["start"]


def _unknown_value(content: Json) -> None:
    content["commands"]["meshd"]["kill"] = "ssh {hots} reboot"


def _open_quote(content: Json) -> None:
    content["commands"]["meshd"]["kill"] = "ssh 'west"


def _misspelt_server(content: Json) -> None:
    content["allowed"]["servers"] = ["west/mesh-1"]


def _misspelt_cluster(content: Json) -> None:
    content["allowed"]["links"] = [["east", "wset"]]


def _link_to_itself(content: Json) -> None:
    content["allowed"]["links"] = [["east", "east"]]


def _twice(content: Json) -> None:
    content["clusters"][1] |= {"name": "east", "id": 1}
    content["allowed"] = {}


def _no_url(content: Json) -> None:
    content["clusters"][0]["meshds"][0]["url"] = "east.example:7979"


def _no_token(content: Json) -> None:
    content["clusters"][0]["meshds"][0] |= {"token_file": "none.token", "token_env": "NO_SUCH_NAME"}


def _unknown_field(content: Json) -> None:
    content["clusters"][0]["meshd"] = []


def _an_option_for_a_name(content: Json) -> None:
    content["clusters"][0]["name"] = "-oProxyCommand=x"


def _no_clusters(content: Json) -> None:
    content["clusters"] = []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without_start, ["commands.meshd: kill without start; nothing is broken that"]),
        (_unknown_value, ["kill west/meshd-1 names {hots}; known there are cluster, host, server"]),
        (_open_quote, ["the command to kill west/meshd-1 isn't well-formed: No closing quotation"]),
        (_misspelt_server, ["there is no server west/mesh-1; did you mean west/meshd-1?"]),
        (_misspelt_cluster, ["allowed.links: there is no cluster wset; did you mean west?"]),
        (_link_to_itself, ["allowed.links: east has no link to itself"]),
        (_twice, ["cluster east is there twice", "id 1 is there twice", "east/meshd-1 is there"]),
        (_no_url, ["url 'east.example:7979' is no address; write it like https://host:7979"]),
        (_no_token, ["both token_file and token_env", "NO_SUCH_NAME is not set", "no file "]),
        (_unknown_field, ["clusters.0.meshd: Extra inputs are not permitted; take it out"]),
        (_an_option_for_a_name, ["clusters.0.name: String should match pattern"]),
        (_no_clusters, ["clusters: Tuple should have at least 1 item"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_to_do(
    tmp_path: Path, spoil: Any, said: list[str]
) -> None:
    content = tree()
    spoil(content)
    path = written(tmp_path, content)
    with pytest.raises(MeshFileError) as caught:
        read_mesh_file(path)
    assert str(caught.value).startswith(f"{path} can't be used:")
    for words in said:
        assert any(words in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: [", "it isn't YAML"),
        ("just a line", "it holds no mapping"),
        ("# " + "x" * 1024 * 1024, "it is larger than 1048576 bytes"),
    ],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(MeshFileError, match=said):
        read_mesh_file(written(tmp_path, text))
    with pytest.raises(MeshFileError, match="it can't be read: No such file"):
        read_mesh_file(tmp_path / "none.yaml")


def test_a_token_is_read_anew_from_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEST_TOKEN", "of-west")
    content = tree()
    content["clusters"][0]["meshds"][0]["token_file"] = "east.token"
    content["clusters"][1]["meshds"][0]["token_env"] = "WEST_TOKEN"
    (tmp_path / "east.token").write_text("first\n")
    east, west = (one.meshds[0] for one in read_mesh_file(written(tmp_path, content)).clusters)
    assert (east.token(), west.token()) == ("first", "of-west")
    (tmp_path / "east.token").write_text("second\n")
    assert east.token() == "second"
    assert east.address == "east.example:7979"
