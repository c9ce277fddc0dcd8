"""Decides: pure functions and state machines. No await, clock, chance, log or socket."""
