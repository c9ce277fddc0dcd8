"""The door to an MQTT 5 broker: what this cluster publishes there."""
