"""An extension for Chaos Toolkit: faults and probes of a mesh as functions of experiments.

For: teams that have Chaos Toolkit, and use it as they know it (`chaos run`). Not for: judging
recorded histories, which is what `python -m chaos` does. Invariants: every action can be undone by
another one, and undoing what wasn't done does no harm; whatever is waited for has a limit.

The functions are in `actions`, `probes` and `expectations`; experiments in `chaos/experiments`.
"""
