"""Uploads: one pass over the bytes in constant memory, the name written last.

What is compressed is unpacked on its way: `digest` names the bytes that came, `stored_digest` those that
are kept.
A refusal, a cut connection or a crash at any point before the last transaction leaves the store as it was.
Fail points: `upload.sealed` (all bytes are there), `upload.published` (the blob is there, no name points to
it), `upload.stored` (it has its name, the client knows nothing).
"""

from collections.abc import AsyncIterator

from servicekit.failpoints import FailPoints, no_fail_points

from image_store.admission import inspect
from image_store.blobs.port import BlobStore, BlobUpload
from image_store.catalogue.catalogue import Catalogue, Stored
from image_store.collector import Collector
from image_store.digest import Digest
from image_store.errors import (
    DigestMismatchError,
    ImageStoreError,
    UploadTooLargeError,
)
from image_store.image import Blob, ImageName
from image_store.intake import Intake, Received, UploadLimits
from image_store.last_steps import LastSteps
from image_store.metrics import UploadMetrics
from image_store.requests import UploadPart, UploadRequest


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
            intake = Intake(request, parts, self._limits, self._metrics)
            compression = await intake.compression()
            # How much compressed bytes become is not known before they are unpacked.
            expected_bytes = None if compression is not None else request.content_length
            async with self._blobs.upload(expected_bytes) as upload:
                received = await intake.receive(upload, compression)
                stored = await self._finish(upload, request, received)
            self._metrics.finished(replayed=stored.replayed)
        return stored

    async def _finish(self, upload: BlobUpload, request: UploadRequest, received: Received) -> Stored:
        stored_digest = await upload.seal()
        self._fail_point("upload.sealed")
        digest = received.digest or stored_digest
        if request.expected_digest is not None and digest != request.expected_digest:
            raise DigestMismatchError(request.expected_digest, digest)
        disk = await upload.examine(lambda source: inspect(source, self._limits.max_virtual_bytes))
        await upload.settle()
        # Nothing is converted, so what is stored is what came, or what that unpacked to.
        blob = Blob(stored_digest, disk.format, received.stored_bytes, disk.virtual_size_bytes)
        return await self._last_steps.run(self._commit(upload, request, received.name, digest, blob))

    async def _commit(
        self, upload: BlobUpload, request: UploadRequest, name: ImageName, digest: Digest, blob: Blob
    ) -> Stored:
        try:
            async with self._collector.keeping(blob.stored_digest):
                await upload.publish()
                self._fail_point("upload.published")
                stored = await self._catalogue.store(name, request, digest, blob)
                self._fail_point("upload.stored")
        except ImageStoreError:
            await self._collector.collect(blob.stored_digest)
            raise
        # A replayed answer refers to what was stored then, which may be gone.
        unsure = blob.stored_digest if stored.replayed else stored.released
        if unsure is not None:
            await self._collector.collect(unsure)
        return stored
