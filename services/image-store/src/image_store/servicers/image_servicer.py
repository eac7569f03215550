"""`ImageService`: what clients may do with images."""

from collections.abc import AsyncIterator

from qcontroller.image.v1 import image_pb2, image_pb2_grpc

from image_store.errors import ImageStoreError, RangeError
from image_store.image import Preconditions
from image_store.images import Images
from image_store.metrics import ReadMetrics
from image_store.requests import parse_filter, parse_request_id
from image_store.servicers.convert import image_message, states_of
from image_store.servicers.upload_stream import UploadStream
from image_store.uploads import Uploads


class ImageServicer(image_pb2_grpc.ImageServiceServicer):
    """Serves clients."""

    def __init__(self, images: Images, uploads: Uploads, metrics: ReadMetrics) -> None:
        self._images = images
        self._uploads = uploads
        self._metrics = metrics

    async def UploadImage(
        self, request_iterator: AsyncIterator[image_pb2.UploadImageRequest], context: object
    ) -> image_pb2.UploadImageResponse:
        """Take an image in."""
        del context
        stream = UploadStream(aiter(request_iterator))
        try:
            stored = await self._uploads.take(await stream.opening(), stream.parts())
        except ImageStoreError:
            await stream.drain()
            raise
        return image_pb2.UploadImageResponse(
            image=image_message(stored.image), created=stored.created, replayed=stored.replayed
        )

    async def GetImage(
        self, request: image_pb2.GetImageRequest, context: object
    ) -> image_pb2.GetImageResponse:
        """Show an image."""
        del context
        return image_pb2.GetImageResponse(image=image_message(await self._images.get(request.name)))

    async def ListImages(
        self, request: image_pb2.ListImagesRequest, context: object
    ) -> image_pb2.ListImagesResponse:
        """Show a page of images."""
        del context
        image_filter = parse_filter(request.labels, states_of(request.states))
        images, token = await self._images.page(image_filter, request.page_size, request.page_token)
        return image_pb2.ListImagesResponse(
            images=[image_message(image) for image in images], next_page_token=token
        )

    async def DeleteImage(
        self, request: image_pb2.DeleteImageRequest, context: object
    ) -> image_pb2.DeleteImageResponse:
        """Delete an image that nobody uses."""
        del context
        replayed = await self._images.delete(
            request.name, parse_request_id(request.request_id), Preconditions(if_match=request.if_match)
        )
        return image_pb2.DeleteImageResponse(replayed=replayed)

    async def DownloadImage(
        self, request: image_pb2.DownloadImageRequest, context: object
    ) -> AsyncIterator[image_pb2.DownloadImageResponse]:
        """Send the stored bytes."""
        del context
        image = await self._images.get(request.name)
        if request.offset >= image.blob.size_bytes:
            raise RangeError(image.blob.size_bytes)
        async with self._images.open(image.blob.stored_digest, request.offset) as content:
            yield image_pb2.DownloadImageResponse(image=image_message(image))
            async for chunk in content.chunks(request.offset, request.length or None):
                self._metrics.sent("client", len(chunk))
                yield image_pb2.DownloadImageResponse(chunk=chunk)
