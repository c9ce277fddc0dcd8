"""`python -m meshd`, and the command `meshd`.

For: being quiet when Ctrl-C comes while the command line is still being imported. Not for: anything
else (`cli.main`).
"""

from __future__ import annotations

import signal


def main() -> None:
    """Import the command line, and run it."""
    # Until there is somebody who can end in order, there is nothing that would have to be.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from meshd.cli.main import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
