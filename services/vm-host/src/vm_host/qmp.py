"""vm-host's own QMP monitor of a QEMU: the power button and the plug.

It stays untouched (QEMU sends no events before negotiation) until vm-host stops. It must never be used
for anything but ending the guest: the machine's monitor is the runner's. What comes out of it is written
by a process that runs hostile code: it is bounded, and only decides how this one guest is ended.
QAPI: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html
"""

import json
import logging
import socket
from typing import Any

from vm_host.loop import READ, Loop

_log = logging.getLogger(__name__)

PRESS_INTERVAL_S = 3.0
"""A guest that is still booting misses the button: it is pressed again after this time."""

_MAX_BUFFERED_BYTES = 1024 * 1024


class PowerButton:
    """Ask one guest to power down until it does.

    Args:
        loop: Where it runs.
        monitor: The connected, non-blocking monitor; stays its owner's.
    """

    def __init__(self, loop: Loop, monitor: socket.socket) -> None:
        self._loop = loop
        self._monitor = monitor
        self._buffer = b""
        self._negotiated = False
        self._pulled = False
        self._ended = False

    def press(self) -> None:
        """Negotiate, then press the button every few seconds."""
        self._loop.watch(self._monitor, READ, lambda _events: self._readable())

    def pull_plug(self) -> bool:
        """Make QEMU quit at once; False if its monitor cannot be used."""
        self._pulled = True
        if self._negotiated:
            self._send("quit")
        return self._negotiated and not self._ended

    def _readable(self) -> None:
        try:
            data = self._monitor.recv(65536)
        except BlockingIOError:
            return
        except OSError as exc:
            self._end(f"read: {exc}")
            return
        self._buffer += data
        if not data or len(self._buffer) > _MAX_BUFFERED_BYTES:
            # Closed by a QEMU that is just ending, or not QMP.
            self._end("closed" if not data else "a line without end")
            return
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            if line.strip() and not self._ended:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as exc:
            self._end(f"not JSON: {exc}")
            return
        if not isinstance(message, dict):
            self._end("not a JSON object")
        elif "QMP" in message:
            self._send("qmp_capabilities")
        elif message.get("id") == "qmp_capabilities" and not self._negotiated:
            self._negotiated = True
            self._press_or_quit()
        elif message.get("id") == "query-status":
            self._decide(message.get("return"))

    def _press_or_quit(self) -> None:
        if self._ended or self._monitor.fileno() < 0:
            return
        if self._pulled:
            self._send("quit")
            return
        self._send("query-status")
        self._loop.call_later(PRESS_INTERVAL_S, self._press_or_quit)

    def _decide(self, status: Any) -> None:
        run_state = status.get("status") if isinstance(status, dict) else None
        if run_state == "running":
            self._send("system_powerdown")
        elif run_state == "paused":
            # A paused guest cannot hear the button. Its file systems are worth more than its pause.
            self._send("cont")
            self._send("system_powerdown")
        else:
            # Not started, shut down, panicked: nobody is there who could power it down.
            self._send("quit")

    def _send(self, command: str) -> None:
        if self._ended or self._monitor.fileno() < 0:  # its QEMU was reaped
            return
        try:
            self._monitor.send(json.dumps({"execute": command, "id": command}).encode() + b"\n")
        except OSError as exc:
            self._end(f"{command}: {exc}")

    def _end(self, fault: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._loop.forget(self._monitor)
        _log.info("monitor ended", extra={"fault": fault})
