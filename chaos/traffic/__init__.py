"""What goes on in a mesh under test while it is broken: commands, subscribers, readers, requests.

Not for: breaking it. Invariant: whatever doesn't answer holds up nobody but who asked it.
"""
