"""Client of one vm-host: the connection, its requests and its events.

Owns one socket to one vm-host for as long as the ``async with`` lasts. It never reconnects (a caller
must look again after an outage anyway) and never closes a descriptor of its caller's.
"""

import asyncio
import itertools
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qemu_runner.adapters.vm_host import codec
from qemu_runner.adapters.vm_host.errors import (
    VmHostError,
    VmHostIncompatible,
    VmHostMessageTooLarge,
    VmHostUnavailable,
)
from qemu_runner.adapters.vm_host.messages import (
    ChildHandle,
    ChildRecord,
    ChildSignal,
    Spawned,
    SpawnRequest,
    VmHostHello,
    WatchEvent,
)

_log = logging.getLogger(__name__)


class VmHostClient:
    """Speak to the vm-host at one socket; an async context manager.

    Args:
        socket_path: Its SEQPACKET socket.
        deadline_s: Time in seconds allowed for connecting with hello, and for each request.
    """

    def __init__(self, socket_path: Path, *, deadline_s: float = 10.0) -> None:
        self.socket_path = socket_path
        self._deadline_s = deadline_s
        self._ids = itertools.count(1)
        self._sending = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: asyncio.Queue[WatchEvent | None] = asyncio.Queue()
        self._watched = False
        self._ended: str = ""
        self._sock: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._hello: VmHostHello | None = None

    async def __aenter__(self) -> Self:
        """Connect and say hello.

        Raises:
            VmHostUnavailable: Nobody answers within the deadline.
            VmHostIncompatible: It speaks no version of the protocol that this client speaks.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(self._deadline_s):
                await asyncio.get_running_loop().sock_connect(sock, str(self.socket_path))
        except (OSError, TimeoutError) as exc:
            sock.close()
            raise self._unavailable(f"cannot connect: {exc or 'timed out'}") from exc
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._reader = asyncio.create_task(self._read(sock), name=f"vm-host {self.socket_path}")
        try:
            answer = await self._request("hello", codec.hello_request())
            self._hello = codec.parse_hello(answer)
        except codec.AnswerInvalid as exc:
            await self._close()
            raise VmHostIncompatible(self.socket_path, str(exc)) from exc
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection; the children live on."""
        await self._close()

    @property
    def hello(self) -> VmHostHello:
        """How the vm-host introduced itself on this connection."""
        if self._hello is None:
            raise self._unavailable("not connected")
        return self._hello

    async def refresh_hello(self) -> VmHostHello:
        """Ask for its introduction again (``stopping`` and the QEMU offers may have changed).

        Raises:
            VmHostUnavailable: No answer in time.
        """
        self._hello = codec.parse_hello(await self._request("hello", codec.hello_request()))
        return self._hello

    async def spawn(self, request: SpawnRequest) -> Spawned:
        """Start a child, or return the one that has this handle already.

        The descriptors in ``request`` stay the caller's, who closes them when this returns or raises;
        the child has duplicates.

        Raises:
            VmHostRefused: Nothing was started; ``INCARNATION_CONFLICT`` if another incarnation of
                this role lives, ``PROGRAM_UNAVAILABLE`` if the binary is missing, ``STOPPING``.
            VmHostMessageTooLarge: The request exceeds 64 KiB or 64 descriptors.
            VmHostUnavailable: No answer in time. Whether it was started is unknown: repeat it.
        """
        body, fds = codec.spawn_request(request)
        return codec.parse_spawned(await self._request("spawn", body, fds))

    async def signal(self, handle: ChildHandle, which: ChildSignal) -> None:
        """Send a signal to a living child; its end is reported by ``watch`` and ``list_children``.

        Raises:
            VmHostRefused: ``HANDLE_UNKNOWN``, or ``HANDLE_EXITED`` if it has ended already.
            VmHostUnavailable: No answer in time; sending it again is harmless.
        """
        await self._request("signal", {"handle": codec.encode_handle(handle), "signal": which.value})

    async def list_children(self) -> tuple[ChildRecord, ...]:
        """Return all children, alive or ended and not acknowledged, ordered by handle.

        Raises:
            VmHostUnavailable: No answer in time.
        """
        children: list[ChildRecord] = []
        after: dict[str, Any] = {}
        while True:
            answer = await self._request("list", after)
            page, cursor = codec.parse_page(answer)
            children.extend(page)
            if cursor is None:
                return tuple(children)
            after = {"after": cursor}

    async def ack(self, handle: ChildHandle) -> None:
        """Let vm-host forget an exit; call it after the exit has been recorded durably.

        Acknowledging an unknown handle is harmless.

        Raises:
            VmHostRefused: ``HANDLE_RUNNING``: it has not ended.
            VmHostUnavailable: No answer in time; repeat it.
        """
        await self._request("ack", {"handle": codec.encode_handle(handle)})

    async def watch(self) -> AsyncIterator[WatchEvent]:
        """Yield every exit not yet acknowledged, then each new one, and the word that vm-host stops.

        One watch per client. An exit is yielded once per connection and again on the next one until
        it is acknowledged.

        Raises:
            VmHostUnavailable: The connection ended (after ``Stopping``: vm-host is gone).
        """
        if self._watched:
            raise RuntimeError("this client is watched already")
        self._watched = True
        await self._request("watch", {})
        while (event := await self._events.get()) is not None:
            yield event
        raise self._unavailable(self._ended)

    def _unavailable(self, detail: str) -> VmHostUnavailable:
        return VmHostUnavailable(self.socket_path, detail)

    async def _request(self, operation: str, body: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        sock = self._sock
        if sock is None or self._ended:
            raise self._unavailable(self._ended or "not connected")
        request_id = next(self._ids)
        payload = codec.encode({"id": request_id, "op": operation, **body})
        if len(fds) > codec.MAX_DESCRIPTORS:
            raise VmHostMessageTooLarge("descriptors of one message", len(fds), codec.MAX_DESCRIPTORS)
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answered
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._send(sock, payload, fds)
                answer = await answered
        except TimeoutError as exc:
            raise self._unavailable(f"no answer to {operation} within {self._deadline_s:g} s") from exc
        except OSError as exc:
            raise self._unavailable(f"cannot send {operation}: {exc}") from exc
        finally:
            self._waiting.pop(request_id, None)
        return codec.parse_result(operation, answer)

    async def _send(self, sock: socket.socket, payload: bytes, fds: Sequence[int]) -> None:
        async with self._sending:
            while True:
                try:
                    # asyncio has no call that sends descriptors
                    socket.send_fds(sock, [payload], list(fds))
                except BlockingIOError:
                    await _writable(sock)
                else:
                    return

    async def _read(self, sock: socket.socket) -> None:
        """Hand each answer to its request and each event to the watch, until the connection ends."""
        loop = asyncio.get_running_loop()
        detail = "the connection was closed"
        try:
            while data := await loop.sock_recv(sock, codec.MAX_MESSAGE_BYTES + 1):
                self._take(data)
            detail = "vm-host closed the connection"
        except (OSError, codec.AnswerInvalid) as exc:
            detail = f"the connection broke: {exc}"
            _log.warning(
                "vm-host connection broke", extra={"socket": str(self.socket_path), "error": str(exc)}
            )
        finally:
            self._ended = detail
            for answered in self._waiting.values():
                if not answered.done():
                    answered.set_exception(self._unavailable(detail))
            self._events.put_nowait(None)

    def _take(self, data: bytes) -> None:
        message = codec.decode(data)
        if "event" in message:
            self._events.put_nowait(codec.parse_event(message))
            return
        answered = self._waiting.get(message.get("id") or 0)
        # An answer nobody waits for any more belongs to a request that timed out or was cancelled.
        if answered is not None and not answered.done():
            answered.set_result(message)

    async def _close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError, VmHostError):
                await self._reader
            self._reader = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None


async def _writable(sock: socket.socket) -> None:
    """Wait until a send can make progress."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(sock.fileno(), wake)
    try:
        await ready
    finally:
        loop.remove_writer(sock.fileno())
