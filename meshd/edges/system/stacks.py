"""Where this process stands, told by itself.

For: a meshd that stands still: on SIGQUIT it writes the stacks of all its threads to stderr and
goes on, on SIGABRT, by which systemd's watchdog ends it, it writes them and ends. Not for: errors
that Python can raise. Invariant: nothing of Python's has to run for it, so it also tells of a
process whose event loop is stuck.
"""

from __future__ import annotations

import faulthandler
import signal


def tell_stacks() -> None:
    """Write the stacks on those signals from now on; on the deadly ones of the machine as well."""
    faulthandler.enable()
    faulthandler.register(signal.SIGQUIT, all_threads=True)


def end_within(seconds: float) -> None:
    """Write the stacks and end with status 1, if this process is still there by then."""
    faulthandler.dump_traceback_later(seconds, exit=True)
