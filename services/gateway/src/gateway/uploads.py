"""One upload: bytes from the client into a peer's stream, in constant memory.

Backpressure runs through: the client's next bytes are read when the peer has taken the ones before. A
refusal of the peer ends the upload at once; a fault of the client's cancels the stream, so that nothing is
stored.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from enum import Enum, auto
from typing import Any, Final

import grpc
from qcontroller.image.v1 import image_pb2 as pb
from qcontroller.image.v1.image_pb2_grpc import ImageServiceStub

from gateway.backends import IMAGE_STORE, Peer
from gateway.errors import PeerUnavailableError
from gateway.forms import FieldValue, FormPart

CHUNK_BYTES: Final = 1024 * 1024
# Small pieces are gathered up to this size; the first goes at once, so that the store can look at the header.
_GATHER_BYTES: Final = 256 * 1024
_PEER_IDLE_S: Final = 60.0
_COMMIT_DEADLINE_S: Final = 600.0
_ABANDON_DEADLINE_S: Final = 5.0


class _Signal(Enum):
    """What the channel carries besides messages."""

    END = auto()
    ABANDON = auto()


_Channel = asyncio.Queue[Any]


async def upload(
    stub: ImageServiceStub, messages: AsyncIterator[pb.UploadImageRequest]
) -> pb.UploadImageResponse:
    """Send an image's `messages` and its end, and return the store's answer.

    Raises:
        As for `send_all`.
    """

    def end(total_bytes: int) -> pb.UploadImageRequest:
        return pb.UploadImageRequest(end=pb.UploadEnd(total_bytes=total_bytes))

    answer: pb.UploadImageResponse = await send_all(IMAGE_STORE, stub.UploadImage, messages, end)
    return answer


async def send_all(peer: Peer, method: Any, messages: AsyncIterator[Any], end: Callable[[int], Any]) -> Any:
    """Send `messages`, and what `end` makes of the number of bytes in their chunks; return the answer.

    Raises:
        PeerUnavailableError: The peer went away, or took nothing for 60 s.
        RemoteError, RequestInvalidError: It refused, perhaps before the end.
        InputError: What the source of the messages raised.
    """
    # One message at most waits here. gRPC is handed an iterator and not written to: the tracing interceptor
    # holds back a call that is written to until it has ended.
    channel: _Channel = asyncio.Queue(maxsize=1)
    answer = asyncio.ensure_future(_answer(method(_outgoing(channel))))
    pump = asyncio.ensure_future(_pump(peer, messages, end, channel))
    try:
        await asyncio.wait({answer, pump}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            pump.result()
            await asyncio.wait({answer}, timeout=_COMMIT_DEADLINE_S)
        if not answer.done():
            raise PeerUnavailableError(peer.absence, peer.name, "no answer to an upload")
        return answer.result()
    except grpc.aio.AioRpcError as exc:
        raise peer.error_of(exc) from exc
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        if not channel.empty():
            channel.get_nowait()
        channel.put_nowait(_Signal.ABANDON)
        await asyncio.wait({answer}, timeout=_ABANDON_DEADLINE_S)
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)


class _AbandonedError(Exception):
    """Raised into gRPC's reader: it cancels the call then, where a plain return would complete the upload."""


async def _answer(call: Any) -> Any:
    return await call


async def _pump(
    peer: Peer, messages: AsyncIterator[Any], end: Callable[[int], Any], channel: _Channel
) -> None:
    total_bytes = 0
    async for message in messages:
        total_bytes += len(message.chunk)
        await _put(peer, channel, message)
    # A cancelled call can look to the peer like the end of the stream; this message cannot.
    await _put(peer, channel, end(total_bytes))
    await _put(peer, channel, _Signal.END)


async def _put(peer: Peer, channel: _Channel, item: Any) -> None:
    try:
        async with asyncio.timeout(_PEER_IDLE_S):
            await channel.put(item)
    except TimeoutError as exc:
        raise PeerUnavailableError(peer.absence, peer.name, "takes no more bytes") from exc


async def _outgoing(channel: _Channel) -> AsyncIterator[Any]:
    while True:
        item = await channel.get()
        if item is _Signal.END:
            return
        if item is _Signal.ABANDON:
            raise _AbandonedError
        yield item


async def raw_messages(
    head: pb.ImageUpload, body: AsyncIterator[bytes]
) -> AsyncIterator[pb.UploadImageRequest]:
    """Yield the messages of an upload whose whole body is the image."""
    yield pb.UploadImageRequest(upload=head)
    async for chunk in gathered(body):
        yield pb.UploadImageRequest(chunk=chunk)


async def form_messages(
    head: pb.ImageUpload, parts: AsyncIterator[FormPart]
) -> AsyncIterator[pb.UploadImageRequest]:
    """Yield the messages of a form, whichever part comes first: a name that comes late is sent late."""
    begun = False
    pending = bytearray()
    sent_any = False
    async for part in parts:
        if isinstance(part, FieldValue):
            if begun:
                yield pb.UploadImageRequest(name=part.value)
            else:
                head.name = part.value
            continue
        if not begun:
            begun = True
            yield pb.UploadImageRequest(upload=head)
        pending += part.content
        if pending and (len(pending) >= _GATHER_BYTES or not sent_any):
            sent_any = True
            for chunk in _pieces(bytes(pending)):
                yield pb.UploadImageRequest(chunk=chunk)
            pending.clear()
    for chunk in _pieces(bytes(pending)):
        yield pb.UploadImageRequest(chunk=chunk)


async def gathered(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield `body` in pieces of at most 1 MiB, small ones put together."""
    pending = bytearray()
    first = True
    async for chunk in body:
        pending += chunk
        if first or len(pending) >= _GATHER_BYTES:
            first = False
            for piece in _pieces(bytes(pending)):
                yield piece
            pending.clear()
    for piece in _pieces(bytes(pending)):
        yield piece


def _pieces(content: bytes) -> list[bytes]:
    return [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
