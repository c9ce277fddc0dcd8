"""The life of the embedded etcd: start, watch over, restart, stop.

For: one etcd process with one owner. Not for: what is in it, nor for telling anybody that it is
down; whoever uses it finds out. Invariant: when `stop` has returned, the process is gone.

    async with EmbeddedEtcd(config) as etcd, asyncio.TaskGroup() as group:
        group.create_task(etcd.run())
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential, wait_random

from meshd.edges.embedded import binary, launch, place
from meshd.edges.embedded.config import EmbeddedConfig, arguments
from meshd.edges.embedded.orphan import end_orphan
from meshd.edges.embedded.ready import is_ready
from meshd.model.errors import FatalError, TransientError

READY_POLL_S = 0.05
RESTART_PAUSE_S_MIN = 0.2
RESTART_PAUSE_S_MAX = 10.0

_ARCHITECTURE = "ETCD_UNSUPPORTED_ARCH"

log = structlog.get_logger(__name__)


class EmbeddedEtcd:
    """Supervises one etcd. Enter it to start etcd; `run` keeps it running; leave it to stop it."""

    def __init__(self, config: EmbeddedConfig) -> None:
        self.config = config
        self.restarts = 0
        self._program: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._lock: int | None = None
        self._stopping = asyncio.Event()
        self._spawning = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """The process id of the etcd that runs, if one does."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start etcd and return when it answers, or raise FatalError saying why it doesn't.

        Call it in the main thread: etcd is ended when the thread that started it ends.
        """
        self._stopping.clear()
        self._program = await binary.find(self.config.binary, allow_unsafe=self.config.allow_unsafe)
        self._lock = await asyncio.to_thread(place.take_data_dir, self.config)
        try:
            orphan = await end_orphan(self.config)
            if orphan is not None:
                log.warning("ended an etcd that an earlier run left behind", pid=orphan)
            await asyncio.to_thread(place.check_ports, self.config)
            await self._launch()
        except TransientError as error:
            await self.stop()
            raise FatalError(str(error)) from error
        except BaseException:
            await self.stop()
            raise

    async def run(self) -> None:
        """Restart etcd whenever it ends, until `stop`. Belongs into a TaskGroup of the caller."""
        while self._process is not None and not self._stopping.is_set():
            status = await self._process.wait()
            if self._stopping.is_set():
                return
            log.error("etcd ended and is started again", exit_status=status)
            await self._restart()

    async def stop(self) -> None:
        """End etcd: SIGTERM, then SIGKILL after the grace period. Safe to call more than once."""
        self._stopping.set()
        try:
            # Whoever is starting a process right now has started it, or will see that we stop.
            async with self._spawning:
                await self._end_process()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    async def _restart(self) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((TransientError, FatalError)),
            wait=wait_exponential(RESTART_PAUSE_S_MIN, RESTART_PAUSE_S_MAX)
            + wait_random(0, RESTART_PAUSE_S_MIN),
            before_sleep=lambda state: log.error(
                "etcd does not start", reason=str(state.outcome and state.outcome.exception())
            ),
        )
        async for attempt in retrying:
            with attempt:
                if self._stopping.is_set():
                    return
                await self._end_process()
                await self._launch()
                self.restarts += 1

    async def _launch(self) -> None:
        # etcd takes settings from its environment too, and refuses to start if they contradict.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name == _ARCHITECTURE or not name.startswith("ETCD_")
        }
        command = [
            *(sys.executable, "-I", "-S", str(Path(launch.__file__))),
            *(str(os.getpid()), str(self.config.pid_file)),
            *(str(self._program), *arguments(self.config)),
        ]
        output = await asyncio.to_thread(place.open_log, self.config)
        try:
            async with self._spawning:
                if self._stopping.is_set():
                    raise TransientError("etcd is being stopped")
                self._process = process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    # Ctrl-C is for meshd, which stops etcd last.
                    start_new_session=True,
                )
        finally:
            os.close(output)
        await self._until_ready(process)

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self.config.start_timeout_s):
                while process.returncode is None:
                    if await is_ready(self.config) and process.returncode is None:
                        return
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            problem = f"does not answer within {self.config.start_timeout_s:g} s"
        else:
            problem = f"ended at once with exit status {process.returncode}"
        words = await asyncio.to_thread(place.last_words, self.config)
        raise TransientError(f"etcd {problem}: {words} (see {self.config.log_file})")

    async def _end_process(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self.config.grace_s):
                await process.wait()
        except TimeoutError:
            log.warning("etcd did not stop in time and is killed", grace_s=self.config.grace_s)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
