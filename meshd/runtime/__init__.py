"""Waits: tasks, time and cancellation. Sees the edges only as the protocols of `ports`."""
