"""A probe that asks for a page, and looks at its status.

A connection of its own each time: one that is kept would go on working where no new one does.
"""

from __future__ import annotations

import os

import aiohttp
from yarl import URL

from meshd.model.probe import Probe

USER_AGENT = "meshd-probe"


async def look_by_http(address: str, port: int, probe: Probe) -> str:
    """Whether a GET is answered with an expected status. The body isn't read."""
    host = f"[{address}]" if ":" in address else address
    url = URL(f"http://{host}:{port}{probe.path}", encoded=True)
    headers = {"User-Agent": USER_AGENT} | ({"Host": probe.host} if probe.host else {})
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            session.get(url, headers=headers, allow_redirects=False) as answer,
        ):
            if probe.status_min <= answer.status <= probe.status_max:
                return ""
            return f"status {answer.status}, not {probe.status_min} to {probe.status_max}"
    except aiohttp.ClientConnectorError as error:
        number = error.os_error.errno
        return os.strerror(number).lower() if number else "can't be reached"
    except (aiohttp.ClientError, OSError) as error:
        return f"no answer by HTTP: {type(error).__name__}"
