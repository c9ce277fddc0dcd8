"""What the demo's tests need before the first of them runs."""

from __future__ import annotations

import asyncio

# pytest-asyncio asks for "the current loop" before its first test, and asyncio makes one up that
# nobody closes; its warning then fails whatever test the collector happens to run in.
asyncio.set_event_loop(None)
