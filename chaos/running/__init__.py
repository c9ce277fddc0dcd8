"""Runs of scenarios: the mesh is broken and healed, and what was recorded of it is judged."""
