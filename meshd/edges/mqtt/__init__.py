"""The door to an MQTT 5 broker: what this cluster publishes there."""

from meshd.edges.mqtt.publisher import MqttBroker

__all__ = ["MqttBroker"]
