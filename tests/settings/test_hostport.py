import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.settings import HostPort


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("127.0.0.1:2379", "127.0.0.1:2379"),
        ("Etcd-0.Example.org:1", "etcd-0.example.org:1"),
        ("[::1]:80", "[::1]:80"),
        ("[FD00::0:1]:80", "[fd00::1]:80"),
        ("localhost:0", "localhost:0"),
        ("my_host:1", "my_host:1"),
    ],
)
def test_reads_an_address_and_writes_it_in_one_way(text: str, written: str) -> None:
    assert str(HostPort.parse(text)) == written
    assert HostPort.parse(written) == HostPort.parse(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("https://a:1", "scheme"),
        ("a", "port"),
        ("a:", "port"),
        ("a:65536", "port"),
        ("a:-1", "port"),
        ("a:\u0661", "port"),
        (":80", "host"),
        ("::1:80", "brackets"),
        ("[::g]:80", "IPv6"),
        ("[10.0.0.1]:80", "IPv6"),
        ("10.0.0.256:80", "IPv4"),
        ("10.0.1:80", "IPv4"),
        ("a b:80", "neither"),
        ("a\n:80", "neither"),
    ],
)
def test_says_what_is_wrong_with_an_address(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        HostPort.parse(text)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        address = HostPort.parse(text)
    except ValueError:
        return
    assert HostPort.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.3.0.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("east.example:1", False),
    ],
)
def test_knows_who_can_reach_it(text: str, loopback: bool) -> None:
    assert HostPort.parse(text).is_loopback is loopback
