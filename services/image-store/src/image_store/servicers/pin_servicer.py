"""`ImagePinService`: what the controller alone may do."""

from collections.abc import AsyncIterator

from qcontroller.image.v1 import internal_pb2, internal_pb2_grpc

from image_store.digest import parse_digest
from image_store.errors import Fault, InvalidRequestError
from image_store.feed import Feed
from image_store.image import ImageName, InstanceId
from image_store.images import Images
from image_store.servicers.convert import event_message, image_message, pin_message


class PinServicer(internal_pb2_grpc.ImagePinServiceServicer):
    """Serves the controller."""

    def __init__(self, images: Images, feed: Feed) -> None:
        self._images = images
        self._feed = feed

    async def PinImage(
        self, request: internal_pb2.PinImageRequest, context: object
    ) -> internal_pb2.PinImageResponse:
        """Resolve a name and pin its blob."""
        del context
        digest = parse_digest(request.expected_digest) if request.expected_digest else None
        faults = [
            Fault(pointer, "must not be empty")
            for pointer, value in (
                ("/instanceId", request.instance_id),
                ("/instanceName", request.instance_name),
                ("/imageName", request.image_name),
            )
            if not value
        ]
        if request.expected_digest and digest is None:
            faults.append(Fault("/expectedDigest", 'a digest is "sha256:" and 64 lower-case hex digits'))
        if faults:
            raise InvalidRequestError(faults)
        pin, image = await self._images.pin(
            InstanceId(request.instance_id), request.instance_name, ImageName(request.image_name), digest
        )
        return internal_pb2.PinImageResponse(pin=pin_message(pin), image=image_message(image))

    async def UnpinImage(
        self, request: internal_pb2.UnpinImageRequest, context: object
    ) -> internal_pb2.UnpinImageResponse:
        """Remove an instance's pin, if it has one."""
        del context
        await self._images.unpin(InstanceId(request.instance_id))
        return internal_pb2.UnpinImageResponse()

    async def ListPins(
        self, request: internal_pb2.ListPinsRequest, context: object
    ) -> internal_pb2.ListPinsResponse:
        """Show all pins."""
        del request, context
        return internal_pb2.ListPinsResponse(pins=[pin_message(pin) for pin in await self._images.pins()])

    async def WatchImages(
        self, request: internal_pb2.WatchImagesRequest, context: object
    ) -> AsyncIterator[internal_pb2.WatchImagesResponse]:
        """Send events, those that were and those that come."""
        del context
        async for event in self._feed.watch(request.cursor):
            yield internal_pb2.WatchImagesResponse(event=event_message(event))
