"""Secrets that settings point to.

For: reading one when it is needed, so that a changed file counts from the next use on. Not for:
keeping it. Invariant: no message holds a secret.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from meshd.model.errors import FatalError
from meshd.settings.kinds import NO_SECRET

SECRET_BYTES_MAX = 4096
"""Longer than any token; a wrong file isn't read whole."""


def secret_text(file: Path | None, inline: SecretStr = NO_SECRET) -> str:
    """The secret: the first line of the file, or what the environment gave, or '' for none.

    Raises FatalError if the file can't be read or holds nothing.
    """
    if file is None:
        return inline.get_secret_value()
    try:
        with file.open("rb") as opened:
            lines = opened.read(SECRET_BYTES_MAX).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FatalError(f"the secret in {file} can't be read: {error}") from error
    text = lines[0].strip() if lines else ""
    if not text:
        raise FatalError(f"{file} has no secret on its first line")
    return text
