"""A judged history, told: as text, as JSON, as JUnit XML, and as a page.

For: people and CI. Not for: judging. Invariant: all of them tell the same verdicts.
"""
