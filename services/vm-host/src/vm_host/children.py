"""The table of children: who lives, who ended and how.

Owns every child from its start until its exit is acknowledged, and is the only one that reaps. A child
is found by its handle; its pid is shown to people and used for nothing.
"""

import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from vm_host.errors import Refusal, RefusedError
from vm_host.loop import READ, Loop
from vm_host.requests import Handle, Role

_log = logging.getLogger(__name__)

LEFTOVER_GRACE_S = 2.0
"""How long a passt may outlive its QEMU before it is killed; by itself it leaves within 20 ms."""


class Reason(StrEnum):
    """Who ended a child, as far as is known here."""

    EXITED = "EXITED"
    HOST_SHUTDOWN = "HOST_SHUTDOWN"


@dataclass(frozen=True, slots=True)
class Exit:
    """How and when a child ended: by ``code`` or by ``signal``, never both."""

    code: int | None
    signal: int | None
    reason: Reason
    ended_at: datetime

    def describe(self) -> dict[str, Any]:
        """Return it as it travels."""
        return {
            "code": self.code,
            "signal": self.signal,
            "reason": self.reason.value,
            "endTime": self.ended_at.isoformat(timespec="milliseconds"),
        }


@dataclass(slots=True)
class Child:
    """One child; ``process``, ``pidfd`` and ``monitor`` exist while it lives."""

    handle: Handle
    pid: int
    started_at: datetime
    process: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    monitor: socket.socket | None = None
    exit: Exit | None = None
    exit_number: int = -1

    def describe(self) -> dict[str, Any]:
        """Return it as it travels."""
        described: dict[str, Any] = {
            "handle": self.handle.describe(),
            "pid": self.pid,
            "startTime": self.started_at.isoformat(timespec="milliseconds"),
        }
        if self.exit is not None:
            described["exit"] = self.exit.describe()
        return described


class Children:
    """All children by handle, and their unacknowledged exits in the order they happened."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._children: dict[Handle, Child] = {}
        self._exits: dict[int, Child] = {}
        self._exit_count = 0
        self._on_exit: list[Callable[[Child], None]] = []
        self.stopping = False

    def subscribe(self, callback: Callable[[Child], None]) -> None:
        """Call back after each exit was recorded."""
        self._on_exit.append(callback)

    def __iter__(self) -> Iterator[Child]:
        """Yield all children ordered by handle."""
        return iter([self._children[handle] for handle in sorted(self._children)])

    def find(self, handle: Handle) -> Child | None:
        """Return the child of this handle, alive or ended and unacknowledged."""
        return self._children.get(handle)

    def alive(self) -> list[Child]:
        """Return the children that have not ended."""
        return [child for child in self._children.values() if child.exit is None]

    def refuse_second_incarnation(self, handle: Handle) -> None:
        """Check that no other incarnation of this machine's role lives.

        Raises:
            RefusedError: One does.
        """
        for child in self.alive():
            if (child.handle.machine_id, child.handle.role) == (handle.machine_id, handle.role):
                raise RefusedError(
                    Refusal.INCARNATION_CONFLICT,
                    f"incarnation {child.handle.incarnation} of its {handle.role} lives",
                )

    def add(self, handle: Handle, process: subprocess.Popen[bytes], monitor: socket.socket | None) -> Child:
        """Take over a process that was just started.

        Raises:
            RefusedError: It cannot be watched, and was ended.
        """
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError as exc:
            process.kill()
            process.wait()
            if monitor is not None:
                monitor.close()
            raise RefusedError(Refusal.SPAWN_FAILED, f"cannot watch the child: {exc}") from exc
        child = Child(handle, process.pid, datetime.now(UTC), process, pidfd, monitor)
        self._children[handle] = child
        self._loop.watch(child.pidfd, READ, lambda _events: self._reap(child))
        _log.info("child started", extra=_fields(child))
        return child

    def restore(self, child: Child) -> None:
        """Take over an ended child of an earlier vm-host."""
        self._children[child.handle] = child
        self._record_exit(child)

    def deliver(self, handle: Handle, number: signal.Signals) -> None:
        """Send a signal to a living child.

        Raises:
            RefusedError: There is none.
        """
        child = self._children.get(handle)
        if child is None:
            raise RefusedError(Refusal.HANDLE_UNKNOWN, "no such child")
        if child.exit is not None:
            raise RefusedError(Refusal.HANDLE_EXITED, "it has ended")
        self.send(child, number)

    def send(self, child: Child, number: signal.Signals) -> None:
        """Send a signal to a child that has not been reaped; one that is just ending ignores it."""
        _log.info("signal sent", extra={**_fields(child), "signal": number.name})
        try:
            signal.pidfd_send_signal(child.pidfd, number)
        except ProcessLookupError:
            # It has ended, and its pidfd will say so in the next round.
            _log.debug("signal came after the end", extra=_fields(child))

    def acknowledge(self, handle: Handle) -> None:
        """Forget an ended child; an unknown one is forgotten already.

        Raises:
            RefusedError: It lives.
        """
        child = self._children.get(handle)
        if child is None:
            return
        if child.exit is None:
            raise RefusedError(Refusal.HANDLE_RUNNING, "it has not ended")
        del self._children[handle]
        del self._exits[child.exit_number]

    def first_exit(self) -> int:
        """Return the number from which a new watcher reads."""
        return min(self._exits, default=self._exit_count)

    def next_exit(self, number: int) -> tuple[int, Child | None]:
        """Return the first unacknowledged exit at or after ``number``, and the number that follows it."""
        while number < self._exit_count:
            child = self._exits.get(number)
            number += 1
            if child is not None:
                return number, child
        return number, None

    def unacknowledged(self) -> list[Child]:
        """Return the ended children that nobody acknowledged."""
        return list(self._exits.values())

    def _reap(self, child: Child) -> None:
        if child.process is None:
            return
        status = child.process.poll()
        if status is None:
            return
        self._loop.forget(child.pidfd)
        os.close(child.pidfd)
        if child.monitor is not None:
            self._loop.forget(child.monitor)
            child.monitor.close()
        child.process, child.pidfd, child.monitor = None, -1, None
        child.exit = Exit(
            code=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            reason=Reason.HOST_SHUTDOWN if self.stopping else Reason.EXITED,
            ended_at=datetime.now(UTC),
        )
        _log.info("child ended", extra={**_fields(child), **child.exit.describe()})
        if child.handle.role is Role.QEMU:
            self._end_leftover(Handle(child.handle.machine_id, Role.PASST, child.handle.incarnation))
        self._record_exit(child)

    def _record_exit(self, child: Child) -> None:
        child.exit_number = self._exit_count
        self._exits[child.exit_number] = child
        self._exit_count += 1
        for callback in self._on_exit:
            callback(child)

    def _end_leftover(self, handle: Handle) -> None:
        leftover = self._children.get(handle)
        if leftover is None or leftover.exit is not None:
            return

        def kill() -> None:
            if leftover.exit is None:
                self.send(leftover, signal.SIGKILL)

        self._loop.call_later(LEFTOVER_GRACE_S, kill)


def _fields(child: Child) -> dict[str, Any]:
    return {**child.handle.describe(), "pid": child.pid}
