"""The story as plain lines, for logs, pipes and `--check`.

For: telling each thing as it happens. Not for: terminals (`view`). Invariant: one line each, no
control characters, nothing is kept back.
"""

from __future__ import annotations

from typing import TextIO

from meshd.demo.scene import Line, Tone

_SIGNS = {
    Tone.STEP: "\n==",
    Tone.SAY: "   ",
    Tone.DONE: "  ·",
    Tone.GOOD: "  ✓",
    Tone.BAD: "  ✗",
}


class PlainLines:
    """Writes lines to a file."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, line: Line) -> None:
        """Write one line."""
        text = f"{_SIGNS[line.tone]} {line.at_s:6.2f} s  {line.text}\n"
        encoding = self._out.encoding or "ascii"
        # A terminal or pipe of another time must not end the demo over a tick.
        self._out.write(text.encode(encoding, errors="replace").decode(encoding))
        self._out.flush()
