"""Breaking a mesh of real processes on purpose, and checking what is left by other means.

For: etcds, wires and daemons that can be broken and mended, and readers of what they leave behind.
Not for: meshd's own code, of which nothing but its command line and REST is used here. Invariant:
nothing here imports meshd, so no bug of meshd can hide itself from it.
"""
