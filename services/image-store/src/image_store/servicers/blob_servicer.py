"""`BlobService`: what runners alone may do."""

from collections.abc import AsyncIterator

from qcontroller.image.v1 import internal_pb2, internal_pb2_grpc

from image_store.digest import parse_digest
from image_store.errors import InvalidRequestError
from image_store.images import Images
from image_store.metrics import ReadMetrics


class BlobServicer(internal_pb2_grpc.BlobServiceServicer):
    """Serves runners."""

    def __init__(self, images: Images, metrics: ReadMetrics) -> None:
        self._images = images
        self._metrics = metrics

    async def ReadBlob(
        self, request: internal_pb2.ReadBlobRequest, context: object
    ) -> AsyncIterator[internal_pb2.ReadBlobResponse]:
        """Send a blob; from its very end, which a runner that has it all may ask for, only its size."""
        del context
        digest = parse_digest(request.stored_digest)
        if digest is None:
            raise InvalidRequestError.at(
                "/storedDigest", 'a digest is "sha256:" and 64 lower-case hex digits'
            )
        async with self._images.open(digest, request.offset) as content:
            yield internal_pb2.ReadBlobResponse(
                size_bytes=content.reader.size_bytes, format=content.blob.format.value
            )
            async for chunk in content.chunks(request.offset, None):
                self._metrics.sent("runner", len(chunk))
                yield internal_pb2.ReadBlobResponse(chunk=chunk)
