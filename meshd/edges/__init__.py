"""Speaks: one folder per protocol, and none of them knows another."""
