"""Uploads: one pass over the bytes in constant memory, the name written last.

A refusal, a cut connection or a crash at any point before the last transaction leaves the store as it was.
Fail points: `upload.sealed` (all bytes are there), `upload.published` (the blob is there, no name points to
it), `upload.stored` (it has its name, the client knows nothing).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from servicekit.failpoints import FailPoints, no_fail_points

from image_store.admission import HEAD_BYTES, inspect, inspect_head
from image_store.blobs.port import BlobStore, BlobUpload
from image_store.catalogue.catalogue import Catalogue, Stored
from image_store.collector import Collector
from image_store.errors import (
    DigestMismatchError,
    ImageStoreError,
    InvalidRequestError,
    UploadTooLargeError,
    UploadTruncatedError,
)
from image_store.image import Blob, ImageName
from image_store.last_steps import LastSteps
from image_store.metrics import UploadMetrics
from image_store.requests import UploadEnd, UploadPart, UploadRequest


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What an upload and the disk in it may have, in bytes."""

    max_upload_bytes: int
    max_virtual_bytes: int


class Uploads:
    """Takes uploads in."""

    def __init__(
        self,
        blobs: BlobStore,
        catalogue: Catalogue,
        collector: Collector,
        last_steps: LastSteps,
        limits: UploadLimits,
        metrics: UploadMetrics,
        fail_point: FailPoints = no_fail_points,
    ) -> None:
        self._blobs = blobs
        self._catalogue = catalogue
        self._collector = collector
        self._last_steps = last_steps
        self._limits = limits
        self._metrics = metrics
        self._fail_point = fail_point

    async def take(self, request: UploadRequest, parts: AsyncIterator[UploadPart]) -> Stored:
        """Store what `parts` bring: chunks of bytes, once a name where `request` has none, an end.

        That the parts stop proves nothing: a client that hangs up can look the same. An upload is whole when
        its end came, or all the bytes that it announced.

        Raises:
            InvalidRequestError: No name or two, or more bytes than announced.
            UploadTruncatedError: The upload is not whole.
            UploadTooLargeError: More bytes than the limit.
            AdmissionError: The bytes must not become an image.
            DigestMismatchError: Other bytes than expected.
            PreconditionFailedError: The name is not in the expected version.
            KeyReusedError: The idempotency key came with another request.
            StoreFullError: No room.
        """
        if request.content_length is not None and request.content_length > self._limits.max_upload_bytes:
            raise UploadTooLargeError(self._limits.max_upload_bytes)
        with self._metrics.upload():
            await self._catalogue.check_upload(request)
            async with self._blobs.upload(request.content_length) as upload:
                name, size_bytes = await self._receive(upload, request, parts)
                stored = await self._finish(upload, request, name, size_bytes)
            self._metrics.finished(replayed=stored.replayed)
        return stored

    async def _receive(
        self, upload: BlobUpload, request: UploadRequest, parts: AsyncIterator[UploadPart]
    ) -> tuple[ImageName, int]:
        name, received, head, whole = request.name, 0, bytearray(), False
        limits, announced = self._limits, request.content_length
        async for part in parts:
            if isinstance(part, UploadEnd):
                whole = part.total_bytes in {None, received}
                break
            if isinstance(part, str):
                if name is not None:
                    raise InvalidRequestError.at("/name", "the upload has a name already")
                name = part
                continue
            received += len(part)
            if received > limits.max_upload_bytes:
                raise UploadTooLargeError(limits.max_upload_bytes)
            if announced is not None and received > announced:
                raise InvalidRequestError.at(
                    "/contentLength", f"more than the announced {announced} bytes came"
                )
            if len(head) < HEAD_BYTES:
                head += part[: HEAD_BYTES - len(head)]
                if len(head) == HEAD_BYTES:
                    inspect_head(bytes(head), limits.max_virtual_bytes)
            await upload.write(part)
            self._metrics.received(len(part))
        if announced is not None:
            whole = received == announced
        if not whole:
            raise UploadTruncatedError(received, announced)
        if name is None:
            raise InvalidRequestError.at("/name", "the upload has no name")
        return name, received

    async def _finish(
        self, upload: BlobUpload, request: UploadRequest, name: ImageName, size_bytes: int
    ) -> Stored:
        digest = await upload.seal()
        self._fail_point("upload.sealed")
        if request.expected_digest is not None and digest != request.expected_digest:
            raise DigestMismatchError(request.expected_digest, digest)
        disk = await upload.examine(lambda source: inspect(source, self._limits.max_virtual_bytes))
        await upload.settle()
        # Nothing is converted, so what is stored is what came.
        blob = Blob(digest, disk.format, size_bytes, disk.virtual_size_bytes)
        return await self._last_steps.run(self._commit(upload, request, name, blob))

    async def _commit(
        self, upload: BlobUpload, request: UploadRequest, name: ImageName, blob: Blob
    ) -> Stored:
        digest = blob.stored_digest
        try:
            async with self._collector.keeping(digest):
                await upload.publish()
                self._fail_point("upload.published")
                stored = await self._catalogue.store(name, request, digest, blob)
                self._fail_point("upload.stored")
        except ImageStoreError:
            await self._collector.collect(digest)
            raise
        # A replayed answer refers to what was stored then, which may be gone.
        unsure = digest if stored.replayed else stored.released
        if unsure is not None:
            await self._collector.collect(unsure)
        return stored
