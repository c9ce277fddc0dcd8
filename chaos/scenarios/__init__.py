"""Scenarios: which mesh, which faults, to whom, how long, and how they are healed, as data."""
