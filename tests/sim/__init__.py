"""The simulator: seeded schedules of faults over the real code, each replayed by its seed.

For: `make sim`, and some dozens of seeds of each ring in every run of the tests. Not for: timing,
or what a real etcd does. Invariant: a schedule depends on its seed and the code alone.
"""
