"""Sockets and certificates."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from meshd.edges.http.listening import bind, tls_context
from meshd.model.errors import FatalError
from meshd.settings import HostPort, ServerTls
from tests.edges.http.served import serve_cluster


def test_a_port_in_use_is_named_with_the_setting_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = HostPort("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(FatalError, match=rf"{listen}: another program .* api\.listen"):
            bind(listen)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_is_not_ours_is_named(host: str) -> None:
    listen = HostPort(host, 8080)
    with pytest.raises(FatalError) as caught:
        bind(listen)
    assert str(listen) in str(caught.value)
    assert "api.listen" in str(caught.value)


def test_ipv6_loopback_is_listened_on() -> None:
    with bind(HostPort("::1", 0)) as opened:
        assert opened.family == socket.AF_INET6


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def _server_tls(authority: trustme.CA, folder: Path) -> ServerTls:
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for index, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(folder / "cert.pem", append=index > 0)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return ServerTls(cert_file=folder / "cert.pem", key_file=folder / "key.pem")


def _client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_files_that_are_no_certificates_are_named(tmp_path: Path, authority: trustme.CA) -> None:
    tls = _server_tls(authority, tmp_path)
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    with pytest.raises(FatalError, match=r"cert_file .*rubbish\.pem"):
        tls_context(ServerTls(cert_file=rubbish, key_file=tls.key_file))
    with pytest.raises(FatalError, match=r"client_ca_file .*rubbish\.pem"):
        tls_context(
            ServerTls(cert_file=tls.cert_file, key_file=tls.key_file, client_ca_file=rubbish)
        )


async def test_with_a_certificate_only_tls_is_spoken(tmp_path: Path, authority: trustme.CA) -> None:
    tls = _server_tls(authority, tmp_path)
    async with serve_cluster(api={"tls": tls}, ssl=_client_context(authority)) as east:
        assert (await east.get("/v1/status"))["cluster"] == "east"
        with pytest.raises(aiohttp.ClientError):
            await east.ask("GET", f"http://{east.address}/v1/status")


async def test_a_client_needs_a_certificate_of_the_right_authority(
    tmp_path: Path, authority: trustme.CA
) -> None:
    server = _server_tls(authority, tmp_path)
    tls = ServerTls(
        cert_file=server.cert_file, key_file=server.key_file, client_ca_file=tmp_path / "ca.pem"
    )
    known, unknown = _client_context(authority), _client_context(authority)
    authority.issue_cert("client@mesh.example").configure_cert(known)
    trustme.CA().issue_cert("client@mesh.example").configure_cert(unknown)
    async with serve_cluster(api={"tls": tls}, ssl=known) as east:
        assert (await east.get("/v1/status"))["cluster"] == "east"
        # Certificates guard it, so neither a token nor a name of loopback is asked for.
        assert (await east.ask("GET", "/v1/status", Host="mesh.example")).status == 200
        # Browsers send certificates by themselves, so a page of another site may not listen.
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await east.client.ws_connect("/v1/events", origin="https://evil.example")
        assert caught.value.status == 403
        for context in (unknown, _client_context(authority)):
            connector = aiohttp.TCPConnector(ssl=context)
            async with aiohttp.ClientSession(connector=connector) as stranger:
                with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
                    async with stranger.get(f"https://{east.address}/livez") as response:
                        await response.read()
