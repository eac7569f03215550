"""One upload: bytes from the client into the image store's stream, in constant memory.

Backpressure runs through: the client's next bytes are read when the store has taken the ones before. A
refusal of the store ends the upload at once; a fault of the client's cancels the stream, so that nothing is
stored.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import grpc
from qcontroller.image.v1 import image_pb2 as pb
from qcontroller.image.v1.image_pb2_grpc import ImageServiceStub

from gateway.backends import IMAGE_STORE
from gateway.errors import PeerUnavailableError
from gateway.forms import FieldValue, FormPart

CHUNK_BYTES: Final = 1024 * 1024
# Small pieces are gathered up to this size; the first goes at once, so that the store can look at the header.
_GATHER_BYTES: Final = 256 * 1024
_STORE_IDLE_S: Final = 60.0
_COMMIT_DEADLINE_S: Final = 600.0


async def upload(
    stub: ImageServiceStub, messages: AsyncIterator[pb.UploadImageRequest]
) -> pb.UploadImageResponse:
    """Send `messages` and return the store's answer.

    Raises:
        PeerUnavailableError: The store went away, or took nothing for 60 s.
        RemoteError: It refused, perhaps before the end.
        InputError: What the source of the messages raised.
    """
    open_stream: Any = stub.UploadImage  # its stubs insist on an iterator
    stream = open_stream()
    answer = asyncio.ensure_future(_answer(stream))
    sending = asyncio.ensure_future(_send(stream, messages))
    try:
        await asyncio.wait({answer, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and sending.exception() is not None and not answer.done():
            fault = sending.exception()
            if not isinstance(fault, _StreamClosedError):
                raise fault or RuntimeError
        async with asyncio.timeout(_COMMIT_DEADLINE_S):
            return await asyncio.shield(answer)
    except grpc.aio.AioRpcError as exc:
        raise IMAGE_STORE.error_of(exc) from exc
    except TimeoutError as exc:
        raise PeerUnavailableError(IMAGE_STORE.absence, IMAGE_STORE.name, "no answer to an upload") from exc
    finally:
        stream.cancel()
        for task in (sending, answer):
            task.cancel()
        await asyncio.gather(sending, answer, return_exceptions=True)


class _StreamClosedError(Exception):
    """The store ended the call while bytes were on their way; its answer tells why."""


async def _answer(stream: Any) -> pb.UploadImageResponse:
    response: pb.UploadImageResponse = await stream
    return response


async def _send(stream: Any, messages: AsyncIterator[pb.UploadImageRequest]) -> None:
    async for message in messages:
        try:
            async with asyncio.timeout(_STORE_IDLE_S):
                await stream.write(message)
        except TimeoutError as exc:
            raise PeerUnavailableError(IMAGE_STORE.absence, IMAGE_STORE.name, "takes no more bytes") from exc
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError) as exc:
            raise _StreamClosedError from exc
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
        await stream.done_writing()


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
