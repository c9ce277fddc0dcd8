"""Certificates for peers that a fault runs, issued by openssl.

For: authorities and leaves that live for a day, or have run out. Not for: certificates that anybody
else trusts. Invariant: a certificate and its key are one file, which is replaced whole.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DAY: Final = 1
RUN_OUT: Final = -1
"""Days from now at which a certificate ends that has run out."""
KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
SAID_CHARS_SHOWN: Final = 500


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs. folder: where its key is."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        """What those need who trust it."""
        return self.folder / f"{self.name}.pem"

    @property
    def _key(self) -> Path:
        return self.folder / f"{self.name}.key"

    async def found(self) -> None:
        """Make its own certificate."""
        await openssl(
            *("req", "-x509", *KEY, "-keyout", str(self._key), "-out", str(self.certificate)),
            *("-days", str(DAY), "-subj", f"/CN={self.name}"),
        )

    async def issue(self, file: Path, host: str, days: int = DAY) -> None:
        """Issue a certificate for who listens at a host or comes from there, with its key."""
        key, asked, signed = (file.with_suffix(suffix) for suffix in (".key", ".csr", ".crt"))
        await openssl(
            *("req", *KEY, "-keyout", str(key), "-out", str(asked), "-subj", f"/CN={file.stem}"),
            *("-addext", f"subjectAltName=IP:{host}"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
        )
        await openssl(
            *("x509", "-req", "-in", str(asked), "-out", str(signed), "-days", str(days)),
            *("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial"),
            *("-copy_extensions", "copy"),
        )
        await asyncio.to_thread(_join, file, key, signed)


def _join(file: Path, *parts: Path) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_bytes(b"".join(part.read_bytes() for part in parts))
    fresh.replace(file)


async def openssl(*arguments: str) -> None:
    """Run it; raises RuntimeError with what it says."""
    process = await asyncio.create_subprocess_exec(
        "openssl",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        reason = said.decode(errors="replace")[-SAID_CHARS_SHOWN:]
        raise RuntimeError(f"openssl {arguments[0]} failed: {reason}")
