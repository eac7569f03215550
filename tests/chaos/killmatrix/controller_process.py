"""The real controller as a process that can be killed and started again within a fraction of a second.

It is `controller.app.application` with its gRPC server, its clients and its SQLite file, forked from a
process that has imported everything and done nothing; SIGKILL is the kernel's. Only its start is unlike a
service's.
"""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

import controller.app
from controller.operations.clock import STEP_VARIABLE
from prometheus_client import CollectorRegistry
from qcontroller.settings.v1.settings_pb2 import ControllerSettings
from servicekit.failpoints import VARIABLE as FAIL_POINTS
from servicekit.logs import configure_logs

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


class ControllerProcess:
    """One controller after another on the same settings.

    Attributes:
        deaths: How many have ended.
    """

    def __init__(self, settings: ControllerSettings, directory: Path, slots: int) -> None:
        settings.operation_slots = slots
        self._settings = settings.SerializeToString()
        self._log = directory / "controller.log"
        self._moment = directory / "moment"
        self._clock = directory / "clock"
        self._process: ForkServerProcess | None = None
        self.deaths = 0

    @property
    def pid(self) -> int:
        """Of the one that runs."""
        process = self._process
        if process is None or process.pid is None:
            raise AssertionError("no controller runs")
        return process.pid

    def start(self) -> None:
        """Start one."""
        process = _CONTEXT.Process(
            target=_run, args=(self._settings, self._log, self._moment, self._clock), daemon=True
        )
        process.start()
        self._process = process

    def kill(self) -> None:
        """End it by SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold it still."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def step_clock(self, seconds: float) -> None:
        """Set its wall clock ahead of the host's, also that of the next one."""
        _replace(self._clock, str(seconds))

    def arm(self, moment: str) -> None:
        """Have it end itself by SIGKILL when it next reaches this fail point (ADR 16)."""
        _replace(self._moment, moment)

    def disarm(self) -> None:
        """Let it pass all fail points."""
        self._moment.unlink(missing_ok=True)

    async def ended(self) -> int:
        """Wait until it has ended and return its exit code, negative for a signal."""
        process = self._process
        if process is None:
            raise AssertionError("no controller runs")
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(process.sentinel, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(process.sentinel)
        process.join()
        self.deaths += 1
        return process.exitcode or 0

    def close(self) -> None:
        """End it for good."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()


def _replace(file: Path, text: str) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


def _run(settings: bytes, log: Path, moment: Path, clock: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    configure_logs("controller", "WARNING")
    os.environ[FAIL_POINTS] = str(moment)
    os.environ[STEP_VARIABLE] = str(clock)
    asyncio.run(_serve(ControllerSettings.FromString(settings)))


async def _serve(settings: ControllerSettings) -> None:
    async with controller.app.application(settings, CollectorRegistry()) as failed:
        await failed
