"""GET /v1/instances/{name}/console: the log of a serial console, whole, in part, with times, or as it grows.

Offsets count from the first byte that the console ever had; what has been given back at the beginning is said
by the offset that an answer begins at, never filled up.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from qcontroller.controller.v1 import instance_pb2 as pb
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.answers import HEAD_KEY, StreamedBytes, client_gone
from gateway.backends import CONTROLLER, Backends, next_of
from gateway.calls import Call
from gateway.console_lines import TimedLines
from gateway.errors import ConsoleGapError, Fault, RangeError, RequestInvalidError
from gateway.preferences import range_of

OFFSET_HEADER: Final = "Console-Offset"
_IDLE_S: Final = 30.0
_MEDIA_TYPE: Final = "text/plain"


class ConsoleLogs:
    """Logs of consoles over HTTP.

    Args:
        peers: The services behind.
        closing: Set when the gateway stops: who follows is let go.
    """

    def __init__(self, peers: Backends, closing: asyncio.Event) -> None:
        self._stub = peers.instances
        self._closing = closing

    async def read(self, call: Call) -> Response:
        """GET …/console; what is refused is answered before the stream begins."""
        query, wanted = call.query, call.request.headers.get("range", "")
        follow, timestamps = query.get("follow", False), query.get("timestamps", False)
        _refuse_contradictions(call)
        if wanted and "if-range" not in call.request.headers:
            # Nothing is a validator of a log that grows: a condition on one never holds (RFC 9110, 13.1.5).
            ranged = await self._range(call, wanted)
            if ranged is not None:
                return ranged
        request = pb.ReadConsoleRequest(
            name=call.name,
            offset=-query["tail"] if "tail" in query else query.get("offset", 0),
            follow=follow,
            timestamps=timestamps,
        )
        pieces = await self._open(call, request)
        headers = {OFFSET_HEADER: str(pieces.offset)}
        lines = TimedLines() if timestamps else None
        if follow:
            return _FollowedLog(pieces.texts(lines), headers, self._closing)
        if not timestamps:
            headers["Accept-Ranges"] = "bytes"
        return StreamedBytes(
            pieces.texts(lines),
            status=200,
            media_type=_MEDIA_TYPE,
            headers=headers,
            length=None if timestamps else pieces.total_bytes - pieces.offset,
        )

    async def _range(self, call: Call, wanted: str) -> Response | None:
        # The size is needed before the range has a meaning; one byte tells it.
        last = await self._open(call, pb.ReadConsoleRequest(name=call.name, offset=-1))
        last.close()
        span = range_of(wanted, last.total_bytes)
        if span is None:
            return None
        if span.last < last.first_kept:
            raise RangeError(last.total_bytes, first_byte=last.first_kept)
        request = pb.ReadConsoleRequest(name=call.name, offset=span.first, length=span.length)
        pieces = await self._open(call, request)
        # What has been given back is left out of the range (RFC 9110, 15.3.7: a subset may be sent).
        first = max(span.first, pieces.offset)
        if first > span.last:
            # All of it has been given back since its size was asked for.
            pieces.close()
            raise RangeError(pieces.total_bytes, first_byte=pieces.first_kept)
        return StreamedBytes(
            pieces.texts(None),
            status=206,
            media_type=_MEDIA_TYPE,
            headers={
                "Content-Range": f"bytes {first}-{span.last}/{span.total_bytes}",
                "Accept-Ranges": "bytes",
                OFFSET_HEADER: str(first),
            },
            length=span.last - first + 1,
        )

    async def _open(self, call: Call, request: pb.ReadConsoleRequest) -> "_Pieces":
        """Return the stream with its first message, so that a refusal comes before the answer's head."""
        stream = self._stub.ReadConsole(request)
        try:
            first = await next_of(CONTROLLER, stream, idle_s=_IDLE_S)
        except BaseException:
            stream.cancel()
            raise
        pieces = _Pieces(stream, first or pb.ReadConsoleResponse())
        if call.request.scope.get(HEAD_KEY):
            # Nothing more of it is read.
            pieces.close()
        return pieces


class _Pieces:
    """A stream of a log and its first message."""

    def __init__(self, stream: Any, first: pb.ReadConsoleResponse) -> None:
        self._stream = stream
        self._first = first
        self.offset = first.offset
        self.total_bytes = first.total_bytes
        self.first_kept = first.first_kept

    def close(self) -> None:
        """Hang up."""
        self._stream.cancel()

    async def texts(self, lines: TimedLines | None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes, or their lines with the times in front.

        Raises:
            ConsoleGapError: What comes next has been given back before it was read.
            PeerUnavailableError: It broke off.
        """
        message: pb.ReadConsoleResponse | None = self._first
        expected = self._first.offset
        try:
            while message is not None:
                if message.chunk:
                    if message.offset != expected:
                        raise ConsoleGapError(expected, message.offset)
                    expected += len(message.chunk)
                    yield message.chunk if lines is None else lines.feed(message)
                message = await next_of(CONTROLLER, self._stream, idle_s=_IDLE_S)
        finally:
            self._stream.cancel()


class _FollowedLog(Response):
    """A log as it grows; whoever hangs up ends it at once, and so does the gateway when it stops."""

    media_type = _MEDIA_TYPE

    def __init__(
        self, source: AsyncGenerator[bytes, None], headers: dict[str, str], closing: asyncio.Event
    ) -> None:
        super().__init__(headers={**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._source = source
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then what comes; a log that breaks off breaks off the answer."""
        async with aclosing(self._source):
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if not scope.get(HEAD_KEY):
                await self._hand_on(receive, send)
            await send({"type": "http.response.body", "body": b""})

    async def _hand_on(self, receive: Receive, send: Send) -> None:
        pump = asyncio.ensure_future(self._pump(send))
        ends = [asyncio.ensure_future(self._closing.wait()), asyncio.ensure_future(client_gone(receive))]
        try:
            await asyncio.wait({pump, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
        finally:
            for task in (pump, *ends):
                task.cancel()
            await asyncio.gather(pump, *ends, return_exceptions=True)

    async def _pump(self, send: Send) -> None:
        # The head is sent with the first bytes of the body: a quiet console must not hold it back.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async for text in self._source:
            await send({"type": "http.response.body", "body": text, "more_body": True})


def _refuse_contradictions(call: Call) -> None:
    """Refuse what cannot all be had.

    Raises:
        RequestInvalidError: With every fault.
    """
    query = call.query
    faults = []
    if "tail" in query and "offset" in query:
        faults.append(Fault("/query/offset", "cannot be had together with tail"))
    chosen = [name for name in ("tail", "offset") if name in query]
    chosen += [name for name in ("follow", "timestamps") if query.get(name)]
    if "range" in call.request.headers and chosen:
        faults.append(Fault("/header/Range", f"cannot be had together with {', '.join(chosen)}"))
    if faults:
        raise RequestInvalidError(faults)
