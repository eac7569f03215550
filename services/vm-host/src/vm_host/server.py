"""The listening socket and its clients.

Owns the socket's path through a lock file beside it: a second vm-host never steals the socket of a
living one, and a stale socket of a dead one is replaced.
"""

import fcntl
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from vm_host import protocol
from vm_host.children import Child, Children
from vm_host.commands import Commands
from vm_host.connection import Connection
from vm_host.errors import Refusal, RefusedError, SocketInUseError
from vm_host.loop import READ, Loop

_log = logging.getLogger(__name__)

MAX_CLIENTS = 64
_BACKLOG = 128
_ACCEPT_PAUSE_S = 1.0
_UMASK = 0o117  # owner and group only; the directory's group is the edge


class Server:
    """Accept clients of one socket.

    Args:
        loop: Where it runs.
        socket_path: Where it listens.
        commands: What requests do.
        children: Whose exits are announced.
    """

    def __init__(self, loop: Loop, socket_path: Path, commands: Commands, children: Children) -> None:
        self._loop = loop
        self._path = socket_path
        self._commands = commands
        self._children = children
        self._clients: set[Connection] = set()
        self._listener: socket.socket | None = None
        self._when_settled: Callable[[], None] | None = None
        children.subscribe(self._exited)

    def listen(self) -> None:
        """Replace a stale socket and accept clients; the caller holds the lock of the path."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.umask(_UMASK)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        self._loop.watch(listener, READ, lambda _events: self._accept())

    def announce(self) -> None:
        """Send to each watcher what it has not been sent, as far as it takes it."""
        for client in tuple(self._clients):
            client.flush()

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back as soon as every client has been sent all that there is to send."""
        self._when_settled = callback
        self._look()

    def close(self) -> None:
        """Remove the socket and end all clients."""
        if self._listener is not None:
            self._path.unlink(missing_ok=True)
            self._loop.forget(self._listener)
            self._listener.close()
            self._listener = None
        for client in tuple(self._clients):
            client.close("vm-host ends")

    def _left(self, client: Connection) -> None:
        self._clients.discard(client)
        self._look()

    def _look(self) -> None:
        if self._when_settled is not None and all(client.settled for client in self._clients):
            callback, self._when_settled = self._when_settled, None
            callback()

    def _exited(self, _child: Child) -> None:
        self.announce()

    def _accept(self) -> None:
        listener = self._listener
        if listener is None:
            return
        try:
            sock, _address = listener.accept()
        except BlockingIOError:
            return
        except OSError as exc:
            # Out of descriptors, most likely: the listener stays readable, so pause instead of spinning.
            _log.error("cannot accept", extra={"error": str(exc)})
            self._loop.forget(listener)
            self._loop.call_later(_ACCEPT_PAUSE_S, self._resume)
            return
        if len(self._clients) >= MAX_CLIENTS:
            self._turn_away(sock)
            return
        self._clients.add(
            Connection(self._loop, sock, self._commands, self._children, self._left, self._look)
        )

    def _resume(self) -> None:
        if self._listener is not None:
            self._loop.watch(self._listener, READ, lambda _events: self._accept())

    @staticmethod
    def _turn_away(sock: socket.socket) -> None:
        refused = RefusedError(Refusal.TOO_MANY_CLIENTS, f"{MAX_CLIENTS} clients are connected")
        with sock:
            sock.setblocking(False)
            try:
                sock.send(protocol.error(None, refused))
            except OSError as exc:
                _log.debug("client turned away unheard", extra={"error": str(exc)})


def lock(socket_path: Path) -> int:
    """Take the lock of a socket path and return its descriptor, which holds it until the process ends.

    Raises:
        SocketInUseError: Another process holds it.
        OSError: The directory cannot be written.
    """
    path = socket_path.with_name(socket_path.name + ".lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(descriptor)
        raise SocketInUseError(socket_path) from exc
    return descriptor
