from pathlib import Path

import pytest

from meshd.model.errors import RejectedError
from meshd.settings import describe, load, read

NAMED = {"MESHD_CLUSTER__NAME": "east", "MESHD_CLUSTER__ID": "1"}


def wheres(*overrides: str, environ: dict[str, str] | None = None) -> list[str]:
    """The paths of the settings that are refused."""
    try:
        load(None, NAMED | (environ or {}), overrides)
    except RejectedError as error:
        return [problem.where.split(" ")[-1] for problem in error.problems]
    return []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.pem"
    path.write_text("x\n")
    return path


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "east.example:80", "[fd00::1]:80"]
)
def test_beyond_loopback_there_must_be_a_token_or_client_certificates(
    listen: str, file: Path
) -> None:
    assert wheres(f"api.listen={listen}") == ["api.listen"]
    assert wheres(f"api.listen={listen}", f"api.token_file={file}") == []
    assert wheres(f"api.listen={listen}", environ={"MESHD_API__TOKEN": "t"}) == []
    assert wheres(f"api.listen={listen}", environ={"MESHD_API__TOKEN": ""}) == ["api.listen"]
    tls = f"api.tls={{cert_file: {file}, key_file: {file}, client_ca_file: {file}}}"
    assert wheres(f"api.listen={listen}", tls) == []


@pytest.mark.parametrize("listen", ["127.0.0.1:80", "127.8.0.1:80", "[::1]:80", "localhost:0"])
def test_on_loopback_nothing_is_asked(listen: str) -> None:
    assert wheres(f"api.listen={listen}") == []


def test_tls_needs_both_halves(file: Path) -> None:
    assert wheres(f"api.tls.cert_file={file}") == ["api.tls.cert_file"]
    assert wheres(f"api.tls.key_file={file}") == ["api.tls.key_file"]
    assert wheres(f"etcd.tls={{ca_file: {file}, cert_file: {file}}}") == ["etcd.tls.cert_file"]
    assert wheres(f"api.tls.client_ca_file={file}") == ["api.tls.client_ca_file"]
    peer = f"peers=[{{name: w, endpoints: 'a:1', tls: {{ca_file: {file}, key_file: {file}}}}}]"
    assert wheres(peer) == ["peers[0].tls.key_file"]


@pytest.mark.parametrize(
    "setting",
    ["api.token_file", "api.tls.cert_file", "etcd.password_file", "etcd.tls.ca_file"],
)
def test_a_file_must_be_there(setting: str, tmp_path: Path) -> None:
    assert setting in wheres(f"{setting}={tmp_path / 'nope'}")
    assert setting in wheres(f"{setting}={tmp_path}")


def test_a_file_must_be_readable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by chmod: root, who often runs tests, may read everything.
    monkeypatch.setattr("os.access", lambda *_: False)
    assert wheres(f"api.token_file={file}") == ["api.token_file"]


def test_tls_needs_to_know_whom_to_trust(file: Path) -> None:
    assert wheres("etcd.tls.server_name=etcd.example") == ["etcd.tls.ca_file"]
    assert wheres("etcd.tls.server_name=etcd.example", f"etcd.tls.ca_file={file}") == []
    peer = "peers=[{name: w, endpoints: 'a:1', audience: hub, tls: {server_name: w.example}}]"
    assert wheres(peer) == ["peers[0].tls.ca_file"]


def test_a_user_needs_a_way_to_prove_itself(file: Path) -> None:
    assert wheres("etcd.username=u") == ["etcd.username"]
    assert wheres("etcd.username=u", f"etcd.password_file={file}") == []
    assert wheres("etcd.username=u", environ={"MESHD_ETCD__PASSWORD": "p"}) == []
    assert (
        wheres(
            "etcd.username=u", f"etcd.tls={{ca_file: {file}, cert_file: {file}, key_file: {file}}}"
        )
        == []
    )
    assert wheres(environ={"MESHD_ETCD__PASSWORD": "p"}) == ["etcd.username"]
    assert wheres("peers=[{name: w, endpoints: 'a:1', username: u}]") == ["peers[0].username"]
    peer = f"peers=[{{name: w, endpoints: 'a:1', password_file: {file}}}]"
    assert wheres(peer) == ["peers[0].username"]


def test_a_secret_is_given_once(file: Path) -> None:
    environ = {"MESHD_API__TOKEN": "t", "MESHD_ETCD__PASSWORD": "p"}
    found = wheres(
        f"api.token_file={file}",
        f"etcd.password_file={file}",
        "etcd.username=u",
        environ=environ,
    )
    assert found == ["etcd.password", "api.token"]


def test_what_an_embedded_etcd_has_no_use_for(file: Path) -> None:
    assert wheres("etcd=embedded") == []
    assert wheres("etcd=embedded", "etcd.endpoints=a:1") == ["etcd.endpoints"]
    assert wheres("etcd=embedded", f"etcd.tls.ca_file={file}") == ["etcd.tls"]
    whole = f"etcd.tls={{ca_file: {file}, cert_file: {file}, key_file: {file}}}"
    assert wheres("etcd=embedded", whole) == []
    assert wheres("etcd=embedded", "etcd.username=u", environ={"MESHD_ETCD__PASSWORD": "p"}) == [
        "etcd.username"
    ]
    assert wheres(
        "etcd=embedded",
        "etcd.embedded.client_address=127.0.0.1:5",
        "etcd.embedded.peer_address=127.0.0.1:5",
    ) == ["etcd.embedded.peer_address"]


def test_peers_are_others_and_each_is_there_once() -> None:
    one = "{name: east, endpoints: 'a:1'}"
    assert wheres(f"peers=[{one}]") == ["peers[0].name"]
    twins = "{name: w, endpoints: 'a:1'}, {name: w, endpoints: 'b:1'}"
    assert wheres(f"peers=[{twins}]") == ["peers[1].name"]
    assert wheres("peers=[{name: c1, endpoints: 'a:1'}, {name: c10, endpoints: 'b:1'}]") == []


def test_no_two_clusters_share_an_etcd() -> None:
    same = "{name: v, endpoints: 'a:1,b:1'}, {name: w, endpoints: 'c:1, b:1'}"
    assert wheres(f"peers=[{same}]") == ["peers[1].endpoints[1]"]
    assert wheres("peers=[{name: w, endpoints: '127.0.0.1:2379'}]") == ["peers[0].endpoints[0]"]
    apart = "{name: v, endpoints: 'a:1', prefix: /v}, {name: w, endpoints: 'a:1', prefix: /w}"
    assert wheres(f"peers=[{apart}]") == []
    assert wheres("peers=[{name: v, endpoints: 'a:1, a:1'}]") == []


def test_withdrawal_comes_after_demotion() -> None:
    assert wheres("staleness={stale_after_s: 9, withdraw_after_s: 8}") == [
        "staleness.withdraw_after_s"
    ]
    peer = "peers=[{{name: w, endpoints: 'a:1', staleness: {{{}}}}}]"
    assert wheres(peer.format("policy: withdraw, withdraw_after_s: 8")) == [
        "peers[0].staleness.withdraw_after_s"
    ]
    assert wheres(peer.format("policy: keep, withdraw_after_s: 8")) == []
    assert wheres(peer.format("policy: withdraw")) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [("silent_after_s", 1), ("lost_after_s", 10), ("backoff_max_s", 0.2)],
)
def test_times_of_replication_are_in_order(setting: str, value: float) -> None:
    assert f"replication.{setting}" in wheres(f"replication.{setting}={value}")


def test_rules_are_checked_although_another_subject_is_wrong() -> None:
    assert wheres("log.level=loud", "api.listen=0.0.0.0:80") == ["log.level", "api.listen"]


# --- the gate -------------------------------------------------------------------------------------


def gate(listen: str, readers: str, tls: str = "{}") -> tuple[str, ...]:
    return (f"gate.listen={listen}", f"gate.readers=[{readers}]", f"gate.tls={tls}")


def test_there_is_no_gate_unless_somebody_opens_one() -> None:
    assert load(None, NAMED, ()).gate.listen is None
    assert wheres("gate.listen=") == []


def test_a_gate_and_its_readers_go_together(file: Path) -> None:
    west = f"{{name: west, password_file: {file}}}"
    assert wheres(*gate("127.0.0.1:2381", west)) == []
    assert wheres("gate.listen=127.0.0.1:2381") == ["gate.listen"]
    assert wheres(f"gate.readers=[{west}]") == ["gate.readers"]
    assert wheres(*gate("127.0.0.1:2381", f"{west}, {west}")) == ["gate.readers[1].name"]
    assert wheres(*gate("127.0.0.1:7979", west)) == ["gate.listen"]
    assert wheres("api.listen=127.0.0.1:0", *gate("127.0.0.1:0", west)) == []


def test_a_gate_beyond_loopback_needs_tls(file: Path) -> None:
    west = f"{{name: west, password_file: {file}}}"
    tls = f"{{cert_file: {file}, key_file: {file}}}"
    assert wheres(*gate("0.0.0.0:2381", west)) == ["gate.listen"]
    assert wheres(*gate("0.0.0.0:2381", west, tls)) == []
    assert wheres(*gate("0.0.0.0:2381", west, f"{{cert_file: {file}}}")) == ["gate.tls.cert_file"]
    only_ca = f"{{client_ca_file: {file}}}"
    assert wheres(*gate("127.0.0.1:2381", west, only_ca)) == ["gate.tls.client_ca_file"]
    missing = f"{{cert_file: {file}, key_file: {file}.none}}"
    assert wheres(*gate("0.0.0.0:2381", west, missing)) == ["gate.tls.key_file"]


def test_a_reader_has_a_password_or_a_certificate_that_is_asked_for(file: Path) -> None:
    tls = f"{{cert_file: {file}, key_file: {file}, client_ca_file: {file}}}"
    assert wheres(*gate("127.0.0.1:2381", "{name: west}")) == ["gate.readers[0]"]
    assert wheres(*gate("127.0.0.1:2381", "{name: west}", tls)) == []
    none = f"{{name: west, password_file: {file}.none}}"
    assert wheres(*gate("127.0.0.1:2381", none)) == ["gate.readers[0].password_file"]
    for wrong in ("{name: 'a b'}", "{name: ''}", "{name: west, audience: A}", "{name: west, x: 1}"):
        assert len(wheres(*gate("127.0.0.1:2381", wrong, tls))) == 1, wrong


def test_a_readers_password_lies_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "west").write_text("w\n")
    config = tmp_path / "meshd.yaml"
    config.write_text(
        "cluster: {name: east, id: 1}\n"
        "gate:\n  listen: 127.0.0.1:2381\n  readers:\n  - {name: west, password_file: west}\n"
    )
    loaded = read(config, {}, ())
    assert loaded.settings.gate.readers[0].password_file == tmp_path / "west"
    rows = {row.setting: row for row in describe(loaded)}
    assert rows["gate.listen"].value == "127.0.0.1:2381"
    assert rows["gate.readers[0].name"].value == "west"
    assert rows["gate.readers[0].audience"].origin == "default"
