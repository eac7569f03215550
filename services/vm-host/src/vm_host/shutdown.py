"""The end in good order: announce, ask the guests, wait, insist, leave a note.

Owns the sequence and its deadlines. Each guest is asked to power down through vm-host's own monitor; who
is still there when the grace is over is made to quit, and then killed. No step waits for a client.
"""

import logging
import signal
from collections.abc import Callable

from vm_host.children import Child, Children
from vm_host.loop import Loop
from vm_host.qmp import PowerButton
from vm_host.requests import Handle, Role
from vm_host.server import Server

_log = logging.getLogger(__name__)

QUIT_GRACE_S = 3.0
"""From `quit` (or SIGTERM) to SIGKILL, once the guests' grace is over."""

DRAIN_GRACE_S = 1.0
"""How long clients get to take the last events; the stop record holds them as well."""


class Shutdown:
    """Stop once.

    Args:
        loop: Where it runs.
        children: Who is to be ended.
        server: Through whom it is announced.
        grace_s: Seconds the guests get.
        done: Called when no child lives and the clients know it.
    """

    def __init__(
        self, loop: Loop, children: Children, server: Server, grace_s: float, done: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._children = children
        self._server = server
        self._grace_s = grace_s
        self._done = done
        self._buttons: dict[Handle, PowerButton] = {}
        self._draining = False
        self._finished = False

    def begin(self) -> None:
        """Begin to stop; harmless when repeated."""
        if self._children.stopping:
            return
        self._children.stopping = True
        alive = self._children.alive()
        _log.info("stopping", extra={"children": len(alive), "graceS": self._grace_s})
        self._children.subscribe(lambda _child: self._look())
        self._server.announce()
        machines = {child.handle.machine_id for child in alive if child.handle.role is Role.QEMU}
        for child in alive:
            if child.handle.role is Role.QEMU:
                self._ask(child)
            elif child.handle.machine_id not in machines:
                # A passt goes with its QEMU, whose guest may need it to shut down; this one has none.
                self._children.send(child, signal.SIGTERM)
        self._loop.call_later(self._grace_s, self._insist)
        self._loop.call_later(self._grace_s + QUIT_GRACE_S, self._kill)
        self._look()

    def _ask(self, child: Child) -> None:
        if child.monitor is None:
            self._children.send(child, signal.SIGTERM)
            return
        self._buttons[child.handle] = PowerButton(self._loop, child.monitor)
        self._buttons[child.handle].press()

    def _insist(self) -> None:
        for child in self._children.alive():
            button = self._buttons.get(child.handle)
            if button is None or not button.pull_plug():
                self._children.send(child, signal.SIGTERM)

    def _kill(self) -> None:
        for child in self._children.alive():
            self._children.send(child, signal.SIGKILL)

    def _look(self) -> None:
        if self._children.alive() or self._draining:
            return
        self._draining = True
        self._loop.call_later(DRAIN_GRACE_S, self._finish)
        self._server.when_settled(self._finish)

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._done()
