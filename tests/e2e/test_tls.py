"""TLS with client certificates, towards the etcd and on REST, by settings alone."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from meshd.edges.embedded import EmbeddedTls
from tests.conftest import StartEtcd
from tests.e2e.conftest import RunDaemon


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("server", "client"):
        leaf = made.issue_cert("127.0.0.1", *[f"127.0.0.{n}" for n in range(2, 4)], name)
        leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    return made


async def test_a_daemon_speaks_tls_with_client_certificates_to_etcd_and_on_rest(
    tmp_path: Path, authority: trustme.CA, start_etcd: StartEtcd, run_daemon: RunDaemon
) -> None:
    ca, server, client = (tmp_path / f"{name}.pem" for name in ("ca", "server", "client"))
    etcd = await start_etcd(tls=EmbeddedTls(ca, server, server))
    overrides = (
        f"etcd.tls.ca_file={ca}",
        f"etcd.tls.cert_file={client}",
        f"etcd.tls.key_file={client}",
        "etcd.tls.server_name=server",
        f"api.tls.cert_file={server}",
        f"api.tls.key_file={server}",
        f"api.tls.client_ca_file={ca}",
    )
    ours = ssl.create_default_context(cafile=ca)
    ours.check_hostname = False
    ours.load_cert_chain(client)
    strangers = ssl.create_default_context(cafile=ca)
    strangers.check_hostname = False
    address = etcd.config.client_address
    async with run_daemon("east", 1, address, {}, *overrides, tls=ours) as east:
        status = await east.get("/v1/status")
        assert status["etcd"]["reachable"] is True
        with pytest.raises(aiohttp.ClientError):
            await east.http.get(f"{east.url}/v1/status", ssl=strangers)
        with pytest.raises(aiohttp.ClientError):
            await east.http.get(f"http://{east.api}/v1/status")
