"""Names: the frozen values that every other room speaks of. Imports nothing else of ours."""
