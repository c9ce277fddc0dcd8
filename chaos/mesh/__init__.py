"""Meshes under test: what they are to those who break, use and watch them, and how they are run.

For: drivers, one for each way to run one. Not for: faults, traffic nor judging.
"""
