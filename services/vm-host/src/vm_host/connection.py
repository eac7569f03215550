"""One client: its requests in, its answers and events out.

Bounded by construction: a client that does not read its answers is not read from any more, and events
are not queued but drawn from the table of exits when the client can take one. So a slow or hostile client
costs one message of memory and delays nobody.
"""

import logging
import socket
from collections.abc import Callable
from typing import Any

from vm_host import protocol
from vm_host.children import Children
from vm_host.commands import Commands
from vm_host.errors import Refusal, RefusedError
from vm_host.loop import READ, WRITE, Loop

_log = logging.getLogger(__name__)


class Connection:
    """Serve one connected socket until its peer ends or misbehaves.

    Args:
        loop: Where it runs.
        sock: The socket; owned from now on.
        commands: What requests do.
        children: Where exits are drawn from.
        closed: Called once, after the socket was closed.
        flushed: Called whenever the client has taken all that there was to send.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        commands: Commands,
        children: Children,
        closed: Callable[["Connection"], None],
        flushed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._commands = commands
        self._children = children
        self._closed = closed
        self._flushed = flushed
        self._answer: bytes | None = None
        self._greeted = False
        self._next_exit: int | None = None
        self._told_stopping = False
        self._open = True
        sock.setblocking(False)
        loop.watch(sock, READ, self._ready)

    @property
    def settled(self) -> bool:
        """Whether the client was sent all that there is to send."""
        if self._answer is not None:
            return False
        if self._next_exit is None:
            return True
        return self._told_stopping and self._children.next_exit(self._next_exit)[1] is None

    def flush(self) -> None:
        """Send what there is to send, as far as the client takes it."""
        try:
            while self._open and (message := self._answer or self._event()) is not None:
                self._answer = message
                self._sock.send(message)
                self._answer = None
        except BlockingIOError:
            self._loop.watch(self._sock, WRITE, self._ready)
        except OSError as exc:
            self.close(f"write: {exc}")
        else:
            if self._open:
                self._loop.watch(self._sock, READ, self._ready)
                self._flushed()

    def close(self, why: str) -> None:
        """Close the socket; harmless when repeated."""
        if not self._open:
            return
        self._open = False
        self._loop.forget(self._sock)
        self._sock.close()
        _log.debug("client gone", extra={"why": why})
        self._closed(self)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self.flush()
        else:
            self._receive()

    def _receive(self) -> None:
        try:
            received = protocol.receive(self._sock)
        except BlockingIOError:
            return
        except OSError as exc:
            self.close(f"read: {exc}")
            return
        try:
            if not received.data and not received.truncated:
                self.close("ended")
                return
            self._answer = self._serve(received)
        except Exception:
            # A defect met by one client's request must not cost the others theirs.
            self.close("defect")
            raise
        finally:
            # The child has duplicates by now.
            received.close()
        self.flush()

    def _serve(self, received: protocol.Received) -> bytes:
        request_id = None
        try:
            request_id, operation, body = protocol.decode(received)
            self._admit(operation, received)
            result = self._commands.run(operation, body, received.fds)
            self._granted(operation)
            return protocol.result(request_id, result)
        except RefusedError as exc:
            _log.info("request refused", extra={"code": exc.code, "fault": exc.message[:512]})
            return protocol.error(request_id, exc)

    def _admit(self, operation: str, received: protocol.Received) -> None:
        if received.fds_truncated or (received.fds and operation != "spawn"):
            raise RefusedError(
                Refusal.TOO_MANY_DESCRIPTORS,
                f"a spawn carries at most {protocol.MAX_DESCRIPTORS} descriptors, other requests none",
            )
        if not self._greeted and operation != "hello":
            raise RefusedError(Refusal.HELLO_REQUIRED, "the first request is hello")

    def _granted(self, operation: str) -> None:
        if operation == "hello":
            self._greeted = True
        elif operation == "watch" and self._next_exit is None:
            self._next_exit = self._children.first_exit()

    def _event(self) -> bytes | None:
        """Draw the next event that the client has not been sent."""
        if self._next_exit is None:
            return None
        if self._children.stopping and not self._told_stopping:
            self._told_stopping = True
            return _event("stopping", startId=self._commands.identity["startId"])
        self._next_exit, child = self._children.next_exit(self._next_exit)
        return None if child is None else _event("exit", child=child.describe())


def _event(name: str, **fields: Any) -> bytes:
    return protocol.encode({"event": name, **fields})
