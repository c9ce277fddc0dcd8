"""Faults, each a small object: what it needs, what it does, how it is undone, how one sees it bit.

For: breaking a mesh under test. Not for: judging what comes of it.
"""
