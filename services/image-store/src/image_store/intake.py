"""What an upload brings, read to its end: counted, unpacked where it is compressed, written on."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from image_store.admission import HEAD_BYTES, inspect_head
from image_store.blobs.port import BlobUpload
from image_store.digest import Digest, digest_of_hex
from image_store.errors import InvalidRequestError, UploadTooLargeError, UploadTruncatedError
from image_store.image import ImageName
from image_store.metrics import UploadMetrics
from image_store.requests import UploadEnd, UploadPart, UploadRequest
from image_store.unpacking import MAGIC_BYTES, Compression, Unpacker, UnpackLimits, compression_of

# What every disk image that is mostly empty may unpack to, whatever it came as.
_UNPACKED_FREELY: Final = 256 * 1024 * 1024
MAX_UNPACK_RATIO: Final = 250


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What an upload and the disk in it may have, in bytes.

    Attributes:
        max_unpacked_bytes: Of a compressed upload; None: as of any other.
        max_unpack_ratio: Times as many as came.
        unpacked_freely_bytes: Up to where that ratio does not matter.
    """

    max_upload_bytes: int
    max_virtual_bytes: int
    max_unpacked_bytes: int | None = None
    max_unpack_ratio: int = MAX_UNPACK_RATIO
    unpacked_freely_bytes: int = _UNPACKED_FREELY

    @property
    def unpack(self) -> UnpackLimits:
        """The limits of unpacking."""
        most = self.max_upload_bytes if self.max_unpacked_bytes is None else self.max_unpacked_bytes
        return UnpackLimits(most, self.max_unpack_ratio, self.unpacked_freely_bytes)


@dataclass(frozen=True, slots=True)
class Received:
    """What an upload brought; `digest` is None where it is that of the stored bytes."""

    name: ImageName
    digest: Digest | None
    stored_bytes: int


class Intake:
    """Reads one upload to its end, and writes what it is made of."""

    def __init__(
        self,
        request: UploadRequest,
        parts: AsyncIterator[UploadPart],
        limits: UploadLimits,
        metrics: UploadMetrics,
    ) -> None:
        self._announced = request.content_length
        self._parts = parts
        self._limits = limits
        self._metrics = metrics
        self._name = request.name
        self._received = 0
        self._whole = False
        self._ended = False
        self._first = b""
        self._head = bytearray()
        self._stored = 0

    async def compression(self) -> Compression | None:
        """Return how the bytes are compressed, having read as few of them as tell it."""
        while len(self._first) < MAGIC_BYTES and (chunk := await self._next()) is not None:
            self._first += chunk
        return compression_of(self._first)

    async def receive(self, upload: BlobUpload, compression: Compression | None) -> Received:
        """Write everything, unpacked, and look at its head meanwhile."""
        if compression is None:
            digest = None
            async for chunk in self._chunks():
                await self._write(upload, chunk)
        else:
            digest = await self._unpack(upload, Unpacker(compression, self._limits.unpack))
        if not self._is_whole():
            raise UploadTruncatedError(self._received, self._announced)
        if self._name is None:
            raise InvalidRequestError.at("/name", "the upload has no name")
        return Received(self._name, digest, self._stored)

    async def _unpack(self, upload: BlobUpload, unpacker: Unpacker) -> Digest:
        came = hashlib.sha256()
        async for chunk in self._chunks():
            await asyncio.to_thread(came.update, chunk)
            pieces = unpacker.pieces(chunk)
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                await self._write(upload, piece)
        if self._is_whole():
            unpacker.finish()
        return digest_of_hex(came.hexdigest())

    def _is_whole(self) -> bool:
        return self._whole if self._announced is None else self._received == self._announced

    async def _write(self, upload: BlobUpload, piece: bytes) -> None:
        head = self._head
        if len(head) < HEAD_BYTES:
            head += piece[: HEAD_BYTES - len(head)]
            if len(head) == HEAD_BYTES:
                inspect_head(bytes(head), self._limits.max_virtual_bytes)
        await upload.write(piece)
        self._stored += len(piece)

    async def _chunks(self) -> AsyncIterator[bytes]:
        if self._first:
            yield self._first
        while (chunk := await self._next()) is not None:
            yield chunk

    async def _next(self) -> bytes | None:
        """Return the next bytes, None after the last."""
        while not self._ended:
            match await anext(self._parts, None):
                case None:
                    self._ended = True
                case UploadEnd(total_bytes):
                    self._ended = True
                    self._whole = total_bytes in {None, self._received}
                case bytes(chunk):
                    self._count(len(chunk))
                    return chunk
                case str(name):
                    if self._name is not None:
                        raise InvalidRequestError.at("/name", "the upload has a name already")
                    self._name = name
        return None

    def _count(self, size: int) -> None:
        self._received += size
        if self._received > self._limits.max_upload_bytes:
            raise UploadTooLargeError(self._limits.max_upload_bytes)
        if self._announced is not None and self._received > self._announced:
            raise InvalidRequestError.at(
                "/contentLength", f"more than the announced {self._announced} bytes came"
            )
        self._metrics.received(size)
