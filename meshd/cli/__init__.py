"""The command line: arguments in, answers of a meshd out, exit status.

For: people and scripts. Not for: deciding anything; a running meshd does. Invariant: exit status 0
means done, 1 failed, 2 that the input or the way the command was called is wrong.
"""
