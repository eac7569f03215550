"""uvicorn inside the service's own loop: our signals, our logs, a clear word when the port is taken."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
from servicekit.server import AddressInUseError
from starlette.types import ASGIApp

_GRACE_S: Final = 3
_SOCKET_MESSAGE_BYTES: Final = 4096
_PING_EVERY_S: Final = 15.0
# Long enough for a reader that is merely slow: its pong waits behind what it has not read.
_PONG_WITHIN_S: Final = 60.0


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process's own handlers."""
        yield


def _above_debug(record: logging.LogRecord) -> bool:
    """Keep out what uvicorn logs at DEBUG: request lines with their queries, what is typed on consoles."""
    return record.levelno > logging.DEBUG


@asynccontextmanager
async def http_server(
    app: ASGIApp, listen: str, closing: asyncio.Event
) -> AsyncIterator["tuple[asyncio.Task[None], int]"]:
    """Serve `app` at `listen` ("host:port"); yield the server's task and the port.

    On leaving, `closing` is set first, so that endless answers end; others get 3 s.

    Raises:
        AddressInUseError: The address cannot be had.
    """
    bound = _bound(listen)
    logging.getLogger("uvicorn.error").addFilter(_above_debug)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="websockets-sansio",
        # A ping tells the dead from the silent.
        ws_max_size=_SOCKET_MESSAGE_BYTES,
        ws_ping_interval=_PING_EVERY_S,
        ws_ping_timeout=_PONG_WITHIN_S,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        yield task, bound.getsockname()[1]
    finally:
        closing.set()
        server.should_exit = True
        await asyncio.wait({task}, timeout=2 * _GRACE_S)
        task.cancel()
        bound.close()


def _bound(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delays off only where the protocol is named: 40 ms an answer otherwise.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, int(port)))
        bound.listen(1024)
    except OSError as exc:
        bound.close()
        told = "is taken: is another stack running?" if exc.errno == errno.EADDRINUSE else "cannot be bound"
        raise AddressInUseError(f"{listen} {told}") from exc
    bound.setblocking(False)
    return bound
