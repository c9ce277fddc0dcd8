from pathlib import Path

import pytest

from meshd.settings import load
from tests.settings.test_rules import NAMED, file, wheres

__all__ = ["file"]

BROKER = "mqtt.broker=127.0.0.1:1883"


def test_nothing_is_published_unless_a_broker_is_named() -> None:
    assert load(None, NAMED, ()).mqtt.broker is None
    assert wheres("mqtt.broker=") == []
    assert str(load(None, NAMED, (BROKER,)).mqtt.broker) == "127.0.0.1:1883"


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ("mqtt.broker=127.0.0.1", "mqtt.broker"),
        ("mqtt.broker=mqtt://127.0.0.1:1883", "mqtt.broker"),
        ("mqtt.broker=127.0.0.1:0", "mqtt.broker"),
        ("mqtt.mesh=a/b", "mqtt.mesh"),
        ("mqtt.mesh=", "mqtt.mesh"),
        ("mqtt.topic_prefix=$SYS", "mqtt.topic_prefix"),
        ("mqtt.topic_prefix=a/+", "mqtt.topic_prefix"),
        ("mqtt.topic_prefix=/a", "mqtt.topic_prefix"),
        ("mqtt.topic_prefix=", "mqtt.topic_prefix"),
        (f"mqtt.topic_prefix={'a' * 129}", "mqtt.topic_prefix"),
        ("mqtt.client_id=a b", "mqtt.client_id"),
        (f"mqtt.client_id={'a' * 129}", "mqtt.client_id"),
        ("mqtt.in_flight_max=0", "mqtt.in_flight_max"),
        ("mqtt.keepalive_s=0", "mqtt.keepalive_s"),
        ("mqtt.event_expiry_s=-1", "mqtt.event_expiry_s"),
        ("mqtt.tls={cert_file: /nope}", "mqtt.tls.ca_file"),
        ("mqtt.password_file=/nope", "mqtt.password_file"),
    ],
)
def test_what_a_broker_could_not_take_is_refused(setting: str, where: str) -> None:
    given = (setting,) if setting.startswith("mqtt.broker") else (BROKER, setting)
    assert where in wheres(*given)


def test_a_user_needs_a_password_or_a_certificate(file: Path) -> None:
    assert wheres(BROKER, "mqtt.username=ann") == ["mqtt.username"]
    assert wheres(BROKER, f"mqtt.password_file={file}") == ["mqtt.username"]
    assert wheres(BROKER, "mqtt.username=ann", f"mqtt.password_file={file}") == []
    tls = f"mqtt.tls={{ca_file: {file}, cert_file: {file}, key_file: {file}}}"
    assert wheres(BROKER, "mqtt.username=ann", tls) == []
    both = {"MESHD_MQTT__PASSWORD": "x"}
    given = (BROKER, "mqtt.username=ann", f"mqtt.password_file={file}")
    assert wheres(*given, environ=both) == ["mqtt.password"]
    assert wheres(BROKER, "mqtt.username=ann", environ=both) == []


def test_credentials_without_a_broker_and_a_broker_without_a_word_are_mistakes(file: Path) -> None:
    assert wheres("mqtt.username=ann", f"mqtt.password_file={file}") == ["mqtt.broker"]
    assert wheres(f"mqtt.tls={{ca_file: {file}}}") == ["mqtt.broker"]
    nothing = [f"mqtt.publish_{what}=false" for what in ("events", "tables", "status")]
    assert wheres(BROKER, *nothing) == ["mqtt.broker"]
    assert wheres(BROKER, *nothing[:2]) == []
