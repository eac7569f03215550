"""Keeps the five services running: starts them, restarts those that die, ends them in order.

A restart is never silent: the status file counts starts and keeps the last exit of each service, so that
the death of vm-host, which takes its machines with it, stays visible. No fault of a file (a full disk, a
directory that somebody removed) ends the supervisor: services without it would be nobody's.
"""

import asyncio
import fcntl
import json
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from qcstack import log_files
from qcstack.layout import ENDING, SERVICES, LayoutError, StackLayout
from qcstack.processes import ProcessId

_LOG = logging.getLogger(__name__)
_FIRST_BACKOFF_S: Final = 0.2
_LAST_BACKOFF_S: Final = 5.0
# A service that ran this long did start: its next restart is quick again.
_SETTLED_S: Final = 10.0
_LOG_INTERVAL_S: Final = 10.0
_KEPT_EXITS: Final = 5


@dataclass(slots=True)
class _Service:
    name: str
    starts: int = 0
    exits: list[str] = field(default_factory=list)
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    def document(self) -> dict[str, object]:
        return {"starts": self.starts, "exits": self.exits}


class Supervisor:
    """Runs one stack until it is told to stop."""

    def __init__(self, layout: StackLayout, owner: ProcessId | None = None) -> None:
        """Take the layout, whose directories and configuration files must exist.

        Args:
            layout: The stack.
            owner: A process whose end ends the stack, however that process ends.
        """
        self._layout = layout
        self._owner = owner
        self._services = {name: _Service(name) for name in SERVICES}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Start every service and keep it running until SIGTERM, SIGINT or SIGHUP; then end them all.

        Raises:
            LayoutError: Another supervisor runs this stack.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopping.set)
        with self._only_one(), self._owner_watched(loop):
            self._publish()
            async with asyncio.TaskGroup() as group:
                keepers = {
                    name: group.create_task(self._keep(service), name=name)
                    for name, service in self._services.items()
                }
                group.create_task(self._end_in_order(keepers))
                group.create_task(self._bound_logs())
            self._layout.status_file.unlink(missing_ok=True)

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        with (self._layout.state / "supervisor.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise LayoutError(f"another supervisor runs the stack in {self._layout.state}") from exc
            yield

    @contextmanager
    def _owner_watched(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        if self._owner is None:
            yield
            return
        try:
            descriptor = os.pidfd_open(self._owner.pid)
        except ProcessLookupError:
            self._stopping.set()
            yield
            return
        if not self._owner.alive():
            self._stopping.set()

        def ended() -> None:
            loop.remove_reader(descriptor)
            self._stopping.set()

        loop.add_reader(descriptor, ended)
        try:
            yield
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _end_in_order(self, keepers: dict[str, asyncio.Task[None]]) -> None:
        await self._stopping.wait()
        for name in ENDING:
            self._services[name].ending.set()
            await asyncio.wait({keepers[name]})

    async def _bound_logs(self) -> None:
        logs = [self._layout.log_file(name) for name in (*SERVICES, "supervisor")]
        while not self._stopping.is_set():
            try:
                await asyncio.to_thread(log_files.bound, logs)
            except OSError as exc:
                _LOG.warning("a log file was cut without a copy: %s", exc)
            try:
                await asyncio.wait_for(self._stopping.wait(), _LOG_INTERVAL_S)
            except TimeoutError:
                continue

    async def _keep(self, service: _Service) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping.is_set():
            begin = time.monotonic()
            try:
                status = await self._run_once(service)
            except OSError as exc:
                status = f"cannot be started: {exc}"
            service.exits = [*service.exits, status][-_KEPT_EXITS:]
            self._publish()
            if self._stopping.is_set():
                return
            _LOG.warning("%s ended (%s) and is started again", service.name, status)
            if time.monotonic() - begin > _SETTLED_S:
                backoff_s = _FIRST_BACKOFF_S
            try:
                await asyncio.wait_for(self._stopping.wait(), backoff_s)
            except TimeoutError:
                backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)

    async def _run_once(self, service: _Service) -> str:
        """Run a service to its end and tell how it ended.

        Raises:
            OSError: It could not be started.
        """
        with self._layout.log_file(service.name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._layout.service_arguments(service.name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal is the supervisor's to handle: the services end in order.
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        try:
            service.starts += 1
            self._publish()
            return await self._watch(service, process)
        finally:
            if process.returncode is None:
                # Only a defect leads here; the service must not become nobody's.
                process.terminate()

    async def _watch(self, service: _Service, process: Process) -> str:
        waiting = asyncio.ensure_future(process.wait())
        ending = asyncio.ensure_future(service.ending.wait())
        await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not waiting.done():
            process.terminate()
            try:
                await asyncio.wait_for(asyncio.shield(waiting), self._layout.end_within_s(service.name))
            except TimeoutError:
                _LOG.error("%s does not end and is killed", service.name)
                process.kill()
        return _exit_text(await waiting)

    def _publish(self) -> None:
        """Write the status file; what runs is known without it, so a full disk only makes it old."""
        me = ProcessId.of(os.getpid())
        document = {
            "pid": me.pid,
            "startTicks": me.start_ticks,
            "baseUrl": self._layout.base_url,
            "services": {name: service.document() for name, service in self._services.items()},
        }
        path = self._layout.status_file
        temporary = path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(document), encoding="utf-8")
            temporary.replace(path)
        except OSError as exc:
            _LOG.warning("the status file could not be written: %s", exc)


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"
