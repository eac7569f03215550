"""Keeps the five services running: starts them, restarts those that die, ends them in order.

A restart is never silent: the status file counts starts and keeps the last exit of each service, so that
the death of vm-host, which takes its machines with it, stays visible.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Final

from qcstack.layout import SERVICES, StackLayout
from qcstack.processes import ProcessId

_LOG = logging.getLogger(__name__)
_FIRST_BACKOFF_S: Final = 0.2
_LAST_BACKOFF_S: Final = 5.0
# A service that ran this long did start: its next restart is quick again.
_SETTLED_S: Final = 10.0
# Beyond vm-host's own grace period: what is left then is killed.
_KILL_AFTER_S: Final = 150.0


@dataclass(slots=True)
class _Service:
    name: str
    process: ProcessId | None = None
    starts: int = 0
    exits: list[str] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        return {
            "pid": self.process.pid if self.process else 0,
            "startTicks": self.process.start_ticks if self.process else 0,
            "starts": self.starts,
            "exits": self.exits[-5:],
        }


class Supervisor:
    """Runs one stack until it is told to stop."""

    def __init__(self, layout: StackLayout) -> None:
        """Take the layout, whose directories and configuration files must exist."""
        self._layout = layout
        self._services = {name: _Service(name) for name in SERVICES}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Start every service and keep it running until SIGTERM or SIGINT; then end them all."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            async with asyncio.TaskGroup() as group:
                for service in self._services.values():
                    group.create_task(self._keep(service), name=service.name)
        finally:
            self._layout.status_file.unlink(missing_ok=True)

    async def _keep(self, service: _Service) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping.is_set():
            begin = time.monotonic()
            status = await self._run_once(service)
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
        with self._layout.log_file(service.name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                SERVICES[service.name],
                "--config",
                str(self._layout.config_file(service.name)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal is the supervisor's to handle: the services end in order.
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        service.process = ProcessId.of(process.pid)
        service.starts += 1
        self._publish()
        waiting = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not waiting.done():
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(asyncio.shield(waiting), _KILL_AFTER_S)
            except TimeoutError:
                _LOG.error("%s does not end and is killed", service.name)
                process.kill()
        status = _exit_text(await waiting)
        service.exits.append(status)
        service.process = None
        self._publish()
        return status

    def _publish(self) -> None:
        me = ProcessId.of(os.getpid())
        document = {
            "pid": me.pid,
            "startTicks": me.start_ticks,
            "baseUrl": self._layout.base_url,
            "services": {name: service.document() for name, service in self._services.items()},
        }
        path = self._layout.status_file
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.replace(path)


def _exit_text(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
