"""Settings: what a person decides about one meshd.

For: reading them from one file, the environment and flags, with every problem at once. Not for:
deciding anything by them. Invariant: a `Settings` that exists is complete and consistent.
"""

from meshd.settings.describe import Row, describe
from meshd.settings.health import HealthSettings
from meshd.settings.hostport import HostPort
from meshd.settings.keeping import RetentionSettings
from meshd.settings.load import Loaded, load, read
from meshd.settings.mqtt import BrokerTls, MqttSettings
from meshd.settings.secret import secret_text
from meshd.settings.serving import GateReader, GateSettings, ServerTls
from meshd.settings.sources import CLIENT_VARIABLES
from meshd.settings.subjects import (
    ApiSettings,
    BudgetSettings,
    ClusterSettings,
    EmbeddedSettings,
    EtcdMode,
    EtcdSettings,
    LogFormat,
    LogLevel,
    LogSettings,
    PeerSettings,
    PeerStaleness,
    ReplicationSettings,
    Settings,
    StalenessSettings,
    StreamsSettings,
    TlsSettings,
    WriterSettings,
)

__all__ = [
    "CLIENT_VARIABLES",
    "ApiSettings",
    "BrokerTls",
    "BudgetSettings",
    "ClusterSettings",
    "EmbeddedSettings",
    "EtcdMode",
    "EtcdSettings",
    "GateReader",
    "GateSettings",
    "HealthSettings",
    "HostPort",
    "Loaded",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "MqttSettings",
    "PeerSettings",
    "PeerStaleness",
    "ReplicationSettings",
    "RetentionSettings",
    "Row",
    "ServerTls",
    "Settings",
    "StalenessSettings",
    "StreamsSettings",
    "TlsSettings",
    "WriterSettings",
    "describe",
    "load",
    "read",
    "secret_text",
]
