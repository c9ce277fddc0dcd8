"""The invariants of the design, each judged from a recorded history.

For: `python -m chaos validate` and reports. Not for: recording. Invariant: pure; what a history
holds no evidence for is `not judged`, which is never a pass.
"""
