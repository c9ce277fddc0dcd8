"""Rules between settings, and between settings and the files they name.

For: what no single value can be blamed for. Not for: limits of single values (`subjects`).
Invariant: a rule is checked as soon as its own subjects are sound, whatever is wrong with others;
a problem's `where` is the setting's path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from meshd.model.errors import Problem
from meshd.model.staleness import StalenessPolicy
from meshd.settings.hostport import HostPort
from meshd.settings.keeping import RetentionSettings
from meshd.settings.mqtt import BrokerTls, MqttSettings
from meshd.settings.serving import GateSettings, ServerTls
from meshd.settings.subjects import (
    ApiSettings,
    ClusterSettings,
    EtcdMode,
    EtcdSettings,
    PeerSettings,
    ReplicationSettings,
    StalenessSettings,
    TlsSettings,
)

Peers = tuple[PeerSettings, ...]


def _check_etcd(etcd: EtcdSettings) -> Iterator[Problem]:
    yield from _check_tls("etcd.tls", etcd.tls)
    yield from _check_readable("etcd.password_file", etcd.password_file)
    has_password = etcd.password_file is not None or bool(etcd.password.get_secret_value())
    if etcd.password_file is not None and etcd.password.get_secret_value():
        yield Problem("etcd.password", "is given beside etcd.password_file", "keep one of them")
    yield from _check_user("etcd", etcd.username, has_password=has_password, tls=etcd.tls)
    yield from _check_upkeep(etcd)
    if etcd.mode is EtcdMode.EMBEDDED:
        yield from _check_embedded(etcd)


def _check_upkeep(etcd: EtcdSettings) -> Iterator[Problem]:
    if etcd.defragment_free_bytes and not etcd.compact_every_s:
        yield Problem(
            "etcd.defragment_free_bytes",
            "does nothing without etcd.compact_every_s",
            "set both: only compaction frees space",
        )


def _check_embedded(etcd: EtcdSettings) -> Iterator[Problem]:
    if etcd.endpoints:
        yield Problem(
            "etcd.endpoints",
            "mean nothing to an embedded etcd",
            "remove them, or set etcd.mode to external",
        )
    if etcd.username:
        yield Problem(
            "etcd.username",
            "an embedded etcd has no users",
            "remove it, or run an etcd of your own and set etcd.mode to external",
        )
    if etcd.tls.is_on and etcd.tls.cert_file is None:
        yield Problem(
            "etcd.tls",
            "an embedded etcd has no certificate to show",
            "add etcd.tls.cert_file and key_file, which serve for it and for meshd",
        )
    if etcd.embedded.client_address == etcd.embedded.peer_address:
        yield Problem(
            "etcd.embedded.peer_address", "is the same as client_address", "choose another port"
        )


def _check_user(
    where: str, username: str, *, has_password: bool, tls: TlsSettings | BrokerTls
) -> Iterator[Problem]:
    if has_password and not username:
        yield Problem(f"{where}.username", "is missing beside a password", "add it")
    if username and not has_password and tls.cert_file is None:
        yield Problem(
            f"{where}.username",
            "has neither a password nor a client certificate",
            f"set {where}.password_file or {where}.tls.cert_file",
        )


def _check_tls(where: str, tls: TlsSettings | BrokerTls, whose: str = "etcd") -> Iterator[Problem]:
    if tls.is_on and tls.ca_file is None:
        yield Problem(f"{where}.ca_file", "is missing", f"add who signs the {whose}'s certificate")
    yield from _check_pair(where, tls.cert_file, tls.key_file)
    for name, file in (
        ("ca_file", tls.ca_file),
        ("cert_file", tls.cert_file),
        ("key_file", tls.key_file),
    ):
        yield from _check_readable(f"{where}.{name}", file)


def _check_pair(where: str, cert_file: Path | None, key_file: Path | None) -> Iterator[Problem]:
    if (cert_file is None) != (key_file is None):
        has, lacks = ("cert_file", "key_file") if cert_file else ("key_file", "cert_file")
        yield Problem(f"{where}.{has}", f"is given without {lacks}", f"add {where}.{lacks}")


def _check_readable(where: str, file: Path | None) -> Iterator[Problem]:
    """What can't be read now would only fail later, with a worse message."""
    if file is None:
        return
    try:
        is_there = file.is_file()
    except OSError as error:
        # Only what is missing counts as missing: a folder that may not be entered raises.
        what = f"{file} can't be looked at: {error.strerror}"
        yield Problem(where, what, "name a file that meshd's user can read")
        return
    if not is_there:
        yield Problem(where, f"there is no file {file}", "name a file that exists")
    elif not os.access(file, os.R_OK):
        yield Problem(where, f"{file} may not be read", "give meshd's user the right to")


def _check_api(api: ApiSettings) -> Iterator[Problem]:
    yield from _check_server_tls("api.tls", api.tls)
    yield from _check_readable("api.token_file", api.token_file)
    has_token = api.token_file is not None or bool(api.token.get_secret_value())
    if api.token_file is not None and api.token.get_secret_value():
        yield Problem("api.token", "is given beside api.token_file", "keep one of them")
    if not api.listen.is_loopback and not has_token and api.tls.client_ca_file is None:
        yield Problem(
            "api.listen",
            f"{api.listen} is open to others without a token or client certificates",
            "set api.token_file or api.tls.client_ca_file, or listen on 127.0.0.1",
        )


def _check_server_tls(where: str, tls: ServerTls) -> Iterator[Problem]:
    yield from _check_pair(where, tls.cert_file, tls.key_file)
    for name, file in (
        ("cert_file", tls.cert_file),
        ("key_file", tls.key_file),
        ("client_ca_file", tls.client_ca_file),
    ):
        yield from _check_readable(f"{where}.{name}", file)
    if tls.client_ca_file is not None and tls.cert_file is None:
        yield Problem(
            f"{where}.client_ca_file", "needs TLS", f"add {where}.cert_file and {where}.key_file"
        )


def _check_gate(api: ApiSettings, gate: GateSettings) -> Iterator[Problem]:
    yield from _check_server_tls("gate.tls", gate.tls)
    yield from _check_readers(gate)
    if gate.listen is None:
        if gate.readers:
            yield Problem("gate.readers", "mean nothing without a gate", "set gate.listen")
        return
    if not gate.readers:
        yield Problem("gate.listen", "lets nobody in", "name peers in gate.readers")
    if gate.listen == api.listen and gate.listen.port:
        yield Problem("gate.listen", f"{gate.listen} is api.listen already", "choose another port")
    if not gate.listen.is_loopback and gate.tls.cert_file is None:
        yield Problem(
            "gate.listen",
            f"{gate.listen} is open to others without TLS",
            "set gate.tls.cert_file and gate.tls.key_file, or listen on 127.0.0.1",
        )


def _check_readers(gate: GateSettings) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, reader in enumerate(gate.readers):
        where = f"gate.readers[{index}]"
        if reader.name in seen:
            first = f"gate.readers[{seen[reader.name]}]"
            yield Problem(f"{where}.name", f"{first} has the same name", "remove one")
        seen.setdefault(reader.name, index)
        yield from _check_readable(f"{where}.password_file", reader.password_file)
        if reader.password_file is None and gate.tls.client_ca_file is None:
            yield Problem(
                where,
                "has neither a password nor a certificate that is asked for",
                f"set {where}.password_file, or gate.tls.client_ca_file to know it by its"
                " certificate's name",
            )


def _check_mqtt(mqtt: MqttSettings) -> Iterator[Problem]:
    yield from _check_tls("mqtt.tls", mqtt.tls, "broker")
    yield from _check_readable("mqtt.password_file", mqtt.password_file)
    has_password = mqtt.password_file is not None or bool(mqtt.password.get_secret_value())
    if mqtt.password_file is not None and mqtt.password.get_secret_value():
        yield Problem("mqtt.password", "is given beside mqtt.password_file", "keep one of them")
    yield from _check_user("mqtt", mqtt.username, has_password=has_password, tls=mqtt.tls)
    if mqtt.broker is None:
        if mqtt.username or mqtt.tls.is_on:
            yield Problem("mqtt.broker", "is missing beside credentials", "name the broker")
    elif not (mqtt.publish_events or mqtt.publish_tables or mqtt.publish_status):
        yield Problem(
            "mqtt.broker",
            "is told nothing",
            "set one of mqtt.publish_events, publish_tables and publish_status",
        )


def _check_peer_names(cluster: ClusterSettings, peers: Peers) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, peer in enumerate(peers):
        where = f"peers[{index}].name"
        if peer.name == cluster.name:
            yield Problem(where, f"{peer.name} is this cluster itself", "remove this peer")
        if peer.name in seen:
            yield Problem(where, f"peers[{seen[peer.name]}] has the same name", "remove one")
        seen.setdefault(peer.name, index)


def _check_peer_endpoints(own: EtcdSettings, peers: Peers) -> Iterator[Problem]:
    """Two clusters behind one address would be one etcd taken for two.

    Prefixes may tell them apart, so that tests can put several clusters into one etcd.
    """
    owners: dict[tuple[HostPort, str], str] = {
        (target, own.prefix): "this cluster's etcd" for target in own.targets
    }
    for index, peer in enumerate(peers):
        for number, endpoint in enumerate(peer.endpoints):
            where = f"peers[{index}].endpoints[{number}]"
            owner = owners.setdefault((endpoint, peer.prefix), f"peers[{index}]")
            if owner != f"peers[{index}]":
                yield Problem(
                    where, f"{endpoint} belongs to {owner} already", "correct one of them"
                )


def _check_peer_access(peers: Peers) -> Iterator[Problem]:
    for index, peer in enumerate(peers):
        where = f"peers[{index}]"
        yield from _check_tls(f"{where}.tls", peer.tls)
        yield from _check_readable(f"{where}.password_file", peer.password_file)
        has_password = peer.password_file is not None
        yield from _check_user(where, peer.username, has_password=has_password, tls=peer.tls)


def _check_staleness(general: StalenessSettings, peers: Peers) -> Iterator[Problem]:
    if general.withdraw_after_s < general.stale_after_s:
        yield _too_early("staleness", general.stale_after_s)
    for index, peer in enumerate(peers):
        rules = peer.staleness.over(general)
        own = (
            peer.staleness.withdraw_after_s is not None or peer.staleness.stale_after_s is not None
        )
        too_early = rules.withdraw_after_s < rules.stale_after_s
        if own and too_early and rules.policy is StalenessPolicy.WITHDRAW:
            yield _too_early(f"peers[{index}].staleness", rules.stale_after_s)


def _too_early(where: str, stale_after_s: float) -> Problem:
    return Problem(
        f"{where}.withdraw_after_s",
        f"is before stale_after_s, {stale_after_s:g}",
        "withdraw after demoting",
    )


def _check_replication(replication: ReplicationSettings) -> Iterator[Problem]:
    for smaller, larger in (
        ("heartbeat_every_s", "silent_after_s"),
        ("silent_after_s", "lost_after_s"),
        ("backoff_min_s", "backoff_max_s"),
    ):
        low, high = getattr(replication, smaller), getattr(replication, larger)
        if low >= high:
            yield Problem(
                f"replication.{larger}", f"{high:g} is not above {smaller}, {low:g}", "raise it"
            )


def _check_retention(retention: RetentionSettings) -> Iterator[Problem]:
    for what in ("events", "bytes", "age_s"):
        keep, cap = getattr(retention, f"keep_{what}"), getattr(retention, f"cap_{what}")
        if cap < keep:
            yield Problem(
                f"retention.cap_{what}", f"{cap:g} is below keep_{what}, {keep:g}", "raise it"
            )


RULES: Sequence[tuple[tuple[str, ...], Callable[..., Iterator[Problem]]]] = (
    (("etcd",), _check_etcd),
    (("api",), _check_api),
    (("api", "gate"), _check_gate),
    (("mqtt",), _check_mqtt),
    (("cluster", "peers"), _check_peer_names),
    (("etcd", "peers"), _check_peer_endpoints),
    (("peers",), _check_peer_access),
    (("staleness", "peers"), _check_staleness),
    (("replication",), _check_replication),
    (("retention",), _check_retention),
)
"""Which subjects each rule needs."""


def check(subjects: Mapping[str, object]) -> Iterator[Problem]:
    """All problems of the subjects given; rules that need one that isn't there are left out."""
    for needs, rule in RULES:
        if all(name in subjects for name in needs):
            yield from rule(*(subjects[name] for name in needs))
