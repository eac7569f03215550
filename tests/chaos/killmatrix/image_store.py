"""An image store with one image, and the pins on it: the truth against which leaks of pins are found."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from fakerunner.faults import Faults
from qcontroller.image.v1 import image_pb2, image_pb2_grpc, internal_pb2, internal_pb2_grpc
from qcontroller.image.v1.image_pb2_grpc import ImageServiceServicer
from qcontroller.image.v1.internal_pb2_grpc import ImagePinServiceServicer
from servicekit.rpc_errors import RpcProblem
from servicekit.server import Register

NAME: Final = "tiny"
DIGEST: Final = "sha256:" + "ab" * 32
_IMAGE: Final = image_pb2.Image(
    name=NAME,
    digest=DIGEST,
    stored_digest=DIGEST,
    format="qcow2",
    virtual_size_bytes=64 << 20,
    arch="x86_64",
)


_NOT_HERE: Final = RpcProblem(grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED", "This store has one image.")


class FakeImageStore(ImageServiceServicer, ImagePinServiceServicer):
    """Serves what the controller asks of a store; `pins` are by instance id."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.pins: set[str] = set()

    def services(self) -> list[tuple[str, Register]]:
        """Return what a server needs."""
        package = "qcontroller.image.v1"
        return [
            (
                f"{package}.ImageService",
                lambda server: image_pb2_grpc.add_ImageServiceServicer_to_server(self, server),
            ),
            (
                f"{package}.ImagePinService",
                lambda server: internal_pb2_grpc.add_ImagePinServiceServicer_to_server(self, server),
            ),
        ]

    async def GetImage(  # noqa: N802 - the contract's name
        self, request: image_pb2.GetImageRequest, _context: Any
    ) -> image_pb2.GetImageResponse:
        return image_pb2.GetImageResponse(image=_IMAGE)

    async def ListImages(  # noqa: N802 - the contract's name
        self, request: image_pb2.ListImagesRequest, _context: Any
    ) -> image_pb2.ListImagesResponse:
        return image_pb2.ListImagesResponse(images=[_IMAGE])

    async def PinImage(  # noqa: N802 - the contract's name
        self, request: internal_pb2.PinImageRequest, _context: Any
    ) -> internal_pb2.PinImageResponse:
        await self.faults.reach("pin.before", request.instance_id)
        self.pins.add(request.instance_id)
        await self.faults.reach("pin.after", request.instance_id)
        pin = internal_pb2.Pin(instance_id=request.instance_id, stored_digest=DIGEST)
        return internal_pb2.PinImageResponse(pin=pin, image=_IMAGE)

    async def UnpinImage(  # noqa: N802 - the contract's name
        self, request: internal_pb2.UnpinImageRequest, _context: Any
    ) -> internal_pb2.UnpinImageResponse:
        await self.faults.reach("unpin.before", request.instance_id)
        self.pins.discard(request.instance_id)
        await self.faults.reach("unpin.after", request.instance_id)
        return internal_pb2.UnpinImageResponse()

    async def ListPins(  # noqa: N802 - the contract's name
        self, request: internal_pb2.ListPinsRequest, _context: Any
    ) -> internal_pb2.ListPinsResponse:
        return internal_pb2.ListPinsResponse(
            pins=[internal_pb2.Pin(instance_id=one) for one in sorted(self.pins)]
        )

    async def UploadImage(  # noqa: N802 - the contract's name
        self, request_iterator: Any, _context: Any
    ) -> image_pb2.UploadImageResponse:
        raise _NOT_HERE

    async def DeleteImage(  # noqa: N802 - the contract's name
        self, request: image_pb2.DeleteImageRequest, _context: Any
    ) -> image_pb2.DeleteImageResponse:
        raise _NOT_HERE

    async def DownloadImage(  # noqa: N802 - the contract's name
        self, request: image_pb2.DownloadImageRequest, _context: Any
    ) -> AsyncIterator[image_pb2.DownloadImageResponse]:
        if request.name:
            raise _NOT_HERE
        yield image_pb2.DownloadImageResponse()

    async def WatchImages(  # noqa: N802 - the contract's name
        self, request: internal_pb2.WatchImagesRequest, _context: Any
    ) -> AsyncIterator[internal_pb2.WatchImagesResponse]:
        # Nothing happens to the one image there is.
        await asyncio.Event().wait()
        yield internal_pb2.WatchImagesResponse()
