import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from meshd.model.errors import FatalError, RejectedError
from meshd.model.staleness import StalenessPolicy
from meshd.settings import (
    CLIENT_VARIABLES,
    EtcdMode,
    HostPort,
    LogLevel,
    Settings,
    describe,
    load,
    read,
    secret_text,
)
from meshd.settings.shape import LISTS, leaves
from meshd.settings.sources import environment_name

NAMED = {"MESHD_CLUSTER__NAME": "east", "MESHD_CLUSTER__ID": "1"}


def write(folder: Path, text: str) -> Path:
    path = folder / "meshd.yaml"
    path.write_text(text)
    return path


def problems(
    path: Path | None, environ: dict[str, str], overrides: Sequence[str] = ()
) -> list[str]:
    with pytest.raises(RejectedError) as caught:
        load(path, environ, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_name_and_id_are_all_that_it_takes() -> None:
    settings = load(None, NAMED, [])
    assert (settings.cluster.name, settings.cluster.id) == ("east", 1)
    assert settings.etcd.mode is EtcdMode.EXTERNAL
    assert settings.etcd.targets == (HostPort("127.0.0.1", 2379),)
    assert settings.api.listen == HostPort("127.0.0.1", 7979)
    assert settings.peers == ()


def test_without_them_each_is_named_with_its_remedy() -> None:
    assert problems(None, {}) == [
        "cluster.name: is missing (add it, or set MESHD_CLUSTER__NAME)",
        "cluster.id: is missing (add it, or set MESHD_CLUSTER__ID)",
    ]


def test_flags_beat_the_environment_which_beats_the_file_which_beats_defaults(
    tmp_path: Path,
) -> None:
    path = write(
        tmp_path,
        "cluster: {name: file, id: 1, region: file, zone: file}\nlog: {level: error}\n",
    )
    environ = {"MESHD_CLUSTER__NAME": "environ", "MESHD_CLUSTER__REGION": "environ"}
    settings = load(path, environ, ["cluster.name=first", "cluster.name=flag"])
    assert settings.cluster.name == "flag"
    assert settings.cluster.region == "environ"
    assert settings.cluster.zone == "file"
    assert settings.log.level is LogLevel.ERROR
    assert settings.etcd.prefix == "/meshd/v1"


def test_the_short_form_of_an_embedded_etcd(tmp_path: Path) -> None:
    path = write(tmp_path, "etcd: embedded\ncluster: {name: east, id: 1}\n")
    settings = load(path, {"MESHD_ETCD__EMBEDDED__CLIENT_ADDRESS": "127.0.1.1:7"}, [])
    assert settings.etcd.mode is EtcdMode.EMBEDDED
    assert settings.etcd.targets == (HostPort("127.0.1.1", 7),)
    assert load(None, NAMED | {"MESHD_ETCD": "embedded"}, []).etcd.mode is EtcdMode.EMBEDDED
    assert load(None, NAMED, ["etcd=embedded"]).etcd.mode is EtcdMode.EMBEDDED


def test_texts_of_the_environment_become_what_the_field_is() -> None:
    settings = load(
        None,
        NAMED
        | {
            "MESHD_CLUSTER__NAME": "007",
            "MESHD_ETCD__ENDPOINTS": "a:1, b:2",
            "MESHD_ETCD__CALL_TIMEOUT_S": "2",
            "MESHD_ETCD__ALLOW_UNSAFE_VERSION": "true",
            "MESHD_CLUSTER__LABELS": "{team: '7'}",
            "MESHD_PEERS": "[{name: west, endpoints: [c:3]}]",
            "MESHD_LOG__LEVEL": "debug",
        },
        ["streams={subscribers_max: 99}"],
    )
    assert settings.cluster.name == "007"
    assert settings.etcd.endpoints == (HostPort("a", 1), HostPort("b", 2))
    assert settings.etcd.call_timeout_s == 2.0
    assert settings.etcd.allow_unsafe_version is True
    assert settings.cluster.labels == {"team": "7"}
    assert settings.peers[0].endpoints == (HostPort("c", 3),)
    assert settings.log.level is LogLevel.DEBUG
    assert settings.streams.subscribers_max == 99
    assert settings.streams.ring_bytes == 64 * 1024 * 1024


def test_variables_of_the_command_line_are_no_settings() -> None:
    assert load(None, NAMED | dict.fromkeys(CLIENT_VARIABLES, "x"), []).cluster.id == 1


def test_a_variable_that_is_unset_by_an_empty_text_is_at_its_default() -> None:
    settings = load(None, NAMED | {"MESHD_PEERS": "", "MESHD_API__TOKEN_FILE": ""}, [])
    assert settings.peers == ()
    assert settings.api.token_file is None


def test_every_problem_of_every_source_at_once_with_place_and_remedy(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "cluster:\n"
        "  name: East\n"
        "  id: 512\n"
        "  nmae: x\n"
        "api:\n"
        "  listen: 0.0.0.0:80\n"
        "peers:\n"
        "  - name: west\n"
        "    endpoint: [a:1]\n"
        "    endpoints:\n"
        "      - b\n"
        "replication: 7\n",
    )
    found = problems(
        path,
        {"MESHD_ECTD__PREFIX": "/x", "MESHD_WRITER__QUEUE_MAX": "many"},
        ["log.level=loud", "log.format", "streams=[", "nonsense=1"],
    )
    assert found == [
        f"{path}:4 cluster.nmae: is not a setting (did you mean cluster.name?)",
        f"{path}:12 replication: is not a map, but 7 (write `key: value` lines below it)",
        "environment MESHD_ECTD__PREFIX: is not a setting (did you mean etcd.prefix?)",
        "flag --set log.format: has no value (write --set path.to.field=value)",
        found[4],
        "flag --set nonsense: is not a setting (remove it or check its spelling)",
        (
            f"{path}:2 cluster.name: is not a cluster name: a-z, 0-9 and '-' inside, at most 32; "
            "it is 'East' (correct it)"
        ),
        (
            f"{path}:3 cluster.id: should be less than or equal to 511; it is 512 "
            "(choose a smaller value)"
        ),
        (
            f"{path}:11 peers[0].endpoints[0]: does not end in a port of 0..65535; "
            "it is 'b' (correct it)"
        ),
        f"{path}:9 peers[0].endpoint: unknown field (remove it or check its spelling)",
        (
            "environment MESHD_WRITER__QUEUE_MAX writer.queue_max: should be a valid integer; "
            "it is 'many' (write a whole number without quotes)"
        ),
        (
            "flag --set log.level: should be 'debug', 'info', 'warning' or 'error'; "
            "it is 'loud' (choose one of these)"
        ),
        (
            f"{path}:6 api.listen: 0.0.0.0:80 is open to others without a token or client "
            "certificates (set api.token_file or api.tls.client_ca_file, or listen on 127.0.0.1)"
        ),
    ]
    assert found[4].startswith("flag --set streams: is not YAML")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: [", "not YAML"),
        ("cluster: {name: a, id: 1}\n---\nlog: {}\n", "second document"),
        ("[1]", "not a map"),
        ("just text", "not a map"),
        ("cluster: {name: a, name: b, id: 1}", "twice"),
        ("cluster: {name: 5, id: 1}", "put it in quotes"),
        ("cluster: {name: a, id: 1}\npeers: {}\n", "write a list"),
        ("cluster: {name: a, id: 1}\npeers: [7]\n", "write a map of its fields"),
        ("cluster: {name: a, id: 1}\nlog: {level: [x]}\n", "choose one of these"),
        ("cluster: {name: a, id: 1, labels: 3}\n", "write a map"),
        ("cluster: {name: a, id: 1}\nstaleness: {stale_after_s: .nan}\n", "stale_after_s"),
        ("cluster: {name: a, id: true}\n", "whole number"),
        ("cluster: {name: a, id: 1}\netcd: {call_timeout_s: true}\n", "write a number"),
        ("cluster: {name: a, id: 1}\netcd: {prefix: /a/}\n", "is not a prefix"),
        ("cluster: {name: a, id: 1}\netcd: {endpoints: ['a:0']}\n", "port 0"),
        ("cluster: {name: a, id: 1}\netcd: {endpoints: [7]}\n", "is not host:port"),
        ("cluster: {name: a, id: 1}\netcd: {tls: {server_name: 'a b'}}\n", "host's name"),
        ("cluster: {name: a, id: 1}\npeers: [{name: b, endpoints: []}]\n", "add one"),
        ("cluster: {name: a, id: 1}\npeers: [{name: b}]\n", "endpoints: is missing (add it)"),
        (
            "cluster: {name: a, id: 1}\npeers: [{name: b, endpoints: 'c:1', audience: A}]\n",
            "audience's name",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, word: str) -> None:
    found = problems(write(tmp_path, text), {})
    assert any(
        word in problem and problem.startswith(f"{tmp_path}/meshd.yaml:") for problem in found
    )


def test_a_file_that_is_not_there_is_a_problem_among_others(tmp_path: Path) -> None:
    found = problems(tmp_path / "nope.yaml", {"MESHD_X": "1"})
    assert "No such file" in found[0]
    assert "MESHD_X" in found[1]


def test_commented_out_lines_leave_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "cluster: {name: a, id: 1, region: }\npeers:\n#  - name: b\nlog:\n")
    settings = load(path, {}, [])
    assert settings.peers == ()
    assert settings.cluster.region == ""


def test_paths_are_beside_the_file_whatever_source_they_come_from(tmp_path: Path) -> None:
    for name in ("token", "ca.pem", "password"):
        (tmp_path / name).write_text(f"{name}\n")
    path = write(
        tmp_path,
        "cluster: {name: a, id: 1}\napi: {token_file: token}\n"
        "peers: [{name: b, endpoints: 'c:1', username: u, password_file: password,"
        " tls: {ca_file: ca.pem, cert_file: ''}}]\n",
    )
    settings = load(path, {"MESHD_ETCD__TLS__CA_FILE": "ca.pem"}, [])
    assert settings.api.token_file == tmp_path / "token"
    assert settings.etcd.tls.ca_file == tmp_path / "ca.pem"
    assert settings.etcd.embedded.data_dir == tmp_path / "meshd-data/etcd"
    assert settings.peers[0].password_file == tmp_path / "password"
    assert settings.peers[0].tls.ca_file == tmp_path / "ca.pem"
    assert settings.peers[0].tls.cert_file is None
    absolute = load(path, {}, ["etcd.embedded.data_dir=/var/lib/meshd"])
    assert absolute.etcd.embedded.data_dir == Path("/var/lib/meshd")
    assert load(path, {}, ["api.token_file="]).api.token_file is None


def test_secrets_come_from_the_environment_or_files_only(tmp_path: Path) -> None:
    path = write(tmp_path, "cluster: {name: a, id: 1}\napi: {token: s3cret}\n")
    found = problems(path, {}, ["etcd.password=s3cret"])
    assert [problem.split(":")[-2:] for problem in found]
    assert "use MESHD_API__TOKEN, or api.token_file" in found[0]
    assert found[1].startswith("flag --set etcd.password: a secret")
    assert "s3cret" not in "".join(found)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    loaded = read(None, NAMED | {"MESHD_API__TOKEN": "s3cret"}, [])
    assert loaded.settings.api.token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(loaded.settings)
    rows = {row.setting: row for row in describe(loaded)}
    assert (rows["api.token"].value, rows["api.token"].origin) == (
        "***",
        "environment MESHD_API__TOKEN",
    )
    assert rows["etcd.password"].value == ""


def test_describe_names_every_setting_and_its_origin(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "cluster:\n  name: a\n  id: 1\npeers:\n- name: b\n  endpoints: c:1\n"
        "  staleness:\n    policy: keep\n",
    )
    loaded = read(path, {"MESHD_CLUSTER__ZONE": "z"}, ["log.level=debug"])
    rows = {row.setting: (row.value, row.origin) for row in describe(loaded)}
    assert rows["cluster.name"] == ("a", f"{path}:2")
    assert rows["cluster.zone"] == ("z", "environment MESHD_CLUSTER__ZONE")
    assert rows["log.level"] == ("debug", "flag --set log.level")
    assert rows["log.format"] == ("json", "default")
    assert rows["peers[0].endpoints"] == (["c:1"], f"{path}:6")
    assert rows["peers[0].staleness.policy"] == ("keep", f"{path}:8")
    assert rows["peers[0].staleness.stale_after_s"] == (None, "default")
    names = {".".join(leaf) for leaf in leaves()} - {"peers"}
    assert names <= set(rows)
    assert ("peers", "[]") in [
        (row.setting, str(row.value)) for row in describe(read(None, NAMED, []))
    ]


def test_a_peer_overrides_the_general_staleness_field_by_field() -> None:
    settings = load(
        None,
        NAMED,
        [
            "staleness={policy: withdraw, stale_after_s: 5, withdraw_after_s: 50}",
            (
                "peers=[{name: w, endpoints: 'a:1', staleness: {stale_after_s: 7}},"
                " {name: x, endpoints: 'b:1', staleness: {policy: keep, withdraw_after_s: 9}}]"
            ),
        ],
    )
    west, other = (peer.staleness.over(settings.staleness) for peer in settings.peers)
    assert dataclasses.astuple(west) == (StalenessPolicy.WITHDRAW, 7, 50)
    assert dataclasses.astuple(other) == (StalenessPolicy.KEEP, 5, 9)


def test_audiences_may_be_a_list_or_one_text(tmp_path: Path) -> None:
    path = write(tmp_path, "cluster: {audiences: [us, eu]}")
    assert load(path, NAMED, []).cluster.audiences == ("eu", "us")
    assert load(None, NAMED, ["cluster.audiences=us,eu"]).cluster.audiences == ("eu", "us")
    assert load(path, NAMED, ["cluster.audiences="]).cluster.audiences == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eu,mesh", "names mesh, which is always written; leave it out"),
        ("eu,us,eu", "eu is named twice"),
        ("EU", "is not an audience's name: a-z, 0-9 and '-' inside, at most 63"),
        (",".join(f"a{number}" for number in range(16)), "has 16 audiences; at most 15"),
    ],
)
def test_audiences_that_there_can_not_be(text: str, said: str) -> None:
    (problem,) = problems(None, NAMED, [f"cluster.audiences={text}"])
    assert problem.startswith("flag --set cluster.audiences")
    assert said in problem


def test_every_setting_can_be_set_by_the_environment() -> None:
    defaults = load(None, NAMED, [])
    for path, leaf in leaves().items():
        if path[0] == "cluster" or path in LISTS or leaf.is_path:
            continue
        value: object = defaults
        for step in path:
            value = getattr(value, step)
        is_unset = leaf.is_secret or value is None
        text = "" if is_unset else ",".join(value) if value == () else str(value)
        again = load(None, NAMED | {environment_name(path): text}, [])
        assert again == defaults, path


def test_every_field_has_a_reason_below_it() -> None:
    folder = Path(__file__).parents[2] / "meshd/settings"
    sources = [(folder / f"{name}.py").read_text() for name in ("subjects", "serving", "keeping")]
    body = [line for one in sources for line in one[one.index("\nclass ") :].splitlines()]
    fields = [
        index
        for index, line in enumerate(body)
        if line.startswith("    ")
        and not line.startswith("     ")
        and ": " in line
        and line[4] != '"'
        and line.strip().split(":")[0].isidentifier()
    ]
    assert len(fields) > len(leaves())
    for index in fields:
        assert body[index + 1].startswith('    """'), body[index]


def test_settings_are_values() -> None:
    assert load(None, NAMED, []) == load(None, NAMED, [])
    assert isinstance(load(None, NAMED, []), Settings)


def test_a_secret_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  abc \nrest\n")
    settings = load(None, NAMED | {"MESHD_API__TOKEN": "inline"}, [])
    assert secret_text(file) == "abc"
    assert secret_text(None) == ""
    assert secret_text(None, settings.api.token) == "inline"


@pytest.mark.parametrize("content", [b"", b"\nsecond\n", b"\xff\n", None])
def test_a_file_without_a_secret_is_named_without_showing_it(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FatalError, match="token") as caught:
        secret_text(file)
    assert "second" not in str(caught.value)
