"""The messages of an upload, in the order that the contract has them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from qcontroller.image.v1 import image_pb2

from image_store.errors import InvalidRequestError, UploadStalledError
from image_store.requests import UploadEnd, UploadPart, UploadRequest, parse_name
from image_store.servicers.convert import upload_request

IDLE_S: Final = 120.0
_CHUNK_BYTES: Final = 1024 * 1024
_DRAIN_S: Final = 5.0
_PAUSE_S: Final = 0.1


class UploadStream:
    """One upload's messages: `opening` once, then `parts`."""

    def __init__(self, messages: AsyncIterator[image_pb2.UploadImageRequest], idle_s: float = IDLE_S) -> None:
        """Read `messages`; give up a sender that is silent for `idle_s`: it holds space."""
        self._messages = messages
        self._idle_s = idle_s

    async def opening(self) -> UploadRequest:
        """Return the request of the first message.

        Raises:
            InvalidRequestError: It is something else, or has faults.
            UploadStalledError: It does not come.
        """
        message = await self._next()
        if message is None or not message.HasField("upload"):
            raise InvalidRequestError.at("/upload", "the first message of an upload describes it")
        return upload_request(message.upload)

    async def parts(self) -> AsyncIterator[UploadPart]:
        """Yield the chunks, and the name and the end if they come.

        Raises:
            InvalidRequestError: A message is none of these, or too large.
            UploadStalledError: The next one does not come.
        """
        while (message := await self._next()) is not None:
            match message.WhichOneof("part"):
                case "chunk":
                    if len(message.chunk) > _CHUNK_BYTES:
                        raise InvalidRequestError.at("/chunk", f"a chunk has at most {_CHUNK_BYTES} bytes")
                    yield message.chunk
                case "name":
                    yield parse_name(message.name)
                case "end":
                    yield UploadEnd(message.end.total_bytes or None)
                case "upload":
                    raise InvalidRequestError.at("/upload", "only the first message describes the upload")
                case None:
                    raise InvalidRequestError.at("", "a message of an upload has a part")

    async def drain(self) -> None:
        """Read on for a moment, without use for it: called before an upload is refused.

        A client whose write is under way when the call ends takes the failed write for the answer (grpc.aio
        says INTERNAL then) and never sees the refusal. One that writes nothing for a moment does see it.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while True:
                    async with asyncio.timeout(_PAUSE_S):
                        if await anext(self._messages, None) is None:
                            return

    async def _next(self) -> image_pb2.UploadImageRequest | None:
        try:
            async with asyncio.timeout(self._idle_s):
                return await anext(self._messages, None)
        except TimeoutError as exc:
            raise UploadStalledError(self._idle_s) from exc
