"""What `deployment/` holds is accepted by the programs that will read it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from meshd.settings import load

DEPLOYMENT = Path(__file__).parent.parent / "deployment"
CLUSTERS = ("east", "west", "south")


def test_the_settings_for_systemd_are_sound() -> None:
    settings = load(DEPLOYMENT / "systemd/meshd.yaml", {}, ())
    assert settings.api.listen.is_loopback


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_settings_of_the_containers_are_sound_and_fit_together(
    name: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    settings = load(DEPLOYMENT / f"container/{name}.yaml", {}, (f"api.token_file={token}",))
    compose = yaml.safe_load((DEPLOYMENT / "container/compose.yaml").read_text())
    assert set(compose["services"]) == set(CLUSTERS)
    addresses = {
        cluster: service["networks"]["mesh"]["ipv4_address"]
        for cluster, service in compose["services"].items()
    }
    assert settings.cluster.name == name
    assert settings.etcd.embedded.client_address.host == addresses[name]
    assert {peer.name: peer.endpoints[0].host for peer in settings.peers} == {
        cluster: address for cluster, address in addresses.items() if cluster != name
    }


def test_without_a_token_they_are_refused_beyond_loopback() -> None:
    with pytest.raises(Exception, match="token"):
        load(DEPLOYMENT / "container/east.yaml", {}, ("api.token_file=",))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("unit", ["meshd.service", "meshd-etcd.service"])
def test_systemd_understands_the_units(unit: str, tmp_path: Path) -> None:
    # Programs of the target machine aren't here; what else is said is about the unit.
    text = (DEPLOYMENT / "systemd" / unit).read_text()
    for program in ("/opt/meshd/bin/meshd", "/usr/bin/etcd"):
        text = text.replace(program, "/bin/true")
    copy = tmp_path / unit
    copy.write_text(text)
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    assert unit not in answer.stderr, answer.stderr
