"""The image store over gRPC. Every call has a deadline."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC
from typing import Final

import grpc
from google.protobuf import json_format
from qcontroller.image.v1 import fetch_pb2, image_pb2, internal_pb2
from qcontroller.image.v1.fetch_pb2_grpc import ImageFetchServiceStub
from qcontroller.image.v1.image_pb2_grpc import ImageServiceStub
from qcontroller.image.v1.internal_pb2_grpc import ImagePinServiceStub

from controller.adapters.peer import Peer
from controller.domain.image_source import FetchWish
from controller.domain.instance import InstanceImage
from controller.errors import ImageDigestMismatch, ImageNotFound, PeerAway, PeerRefused
from controller.ports import ImageEvent, StoreImage

_FIND_S: Final = 5.0
# The name of a host is resolved meanwhile.
_CHECK_S: Final = 20.0
# Whoever uploads an image may say that it has no guest agent: then nothing waits for one.
_AGENT_LABEL: Final = "guest-agent"
_NO_AGENT: Final = "none"
_PEER: Final = Peer("the image store", "IMAGE_STORE_UNAVAILABLE")


class ImageStoreClient:
    """Implements `ImageStore`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._images = ImageServiceStub(channel)
        self._fetches = ImageFetchServiceStub(channel)
        self._pins = ImagePinServiceStub(channel)

    async def find(self, name: str) -> StoreImage:
        try:
            with _PEER.errors():
                answer = await self._images.GetImage(image_pb2.GetImageRequest(name=name), timeout=_FIND_S)
        except PeerRefused as exc:
            if exc.reason == "IMAGE_NOT_FOUND":
                raise ImageNotFound(name) from exc
            raise
        return _found(answer.image)

    async def find_by_digest(self, digest: str) -> StoreImage | None:
        with _PEER.errors():
            answer = await self._fetches.FindImage(fetch_pb2.FindImageRequest(digest=digest), timeout=_FIND_S)
        return _found(answer.image) if answer.HasField("image") else None

    async def check_fetch(self, wish: FetchWish) -> None:
        request = fetch_pb2.CheckFetchRequest(fetch=_fetch(wish))
        with _PEER.errors():
            await self._fetches.CheckFetch(request, timeout=_CHECK_S)

    async def fetch(
        self, wish: FetchWish, progress: Callable[[int, int], None], timeout_s: float
    ) -> StoreImage:
        call = self._fetches.FetchImage(_fetch(wish), timeout=timeout_s)
        found = None
        # Only the server it fetches from may be silent, and the store itself sees to that.
        async for message in _PEER.messages(call, idle_s=None):
            if message.HasField("image"):
                found = _found(message.image)
            else:
                progress(message.progress.done_bytes, message.progress.total_bytes)
        if found is None:
            raise PeerAway(_PEER.absence, f"{_PEER.name} ended a fetch without a word.")
        return found

    async def undo_fetch(self, name: str, digest: str, timeout_s: float) -> None:
        request = fetch_pb2.UndoFetchRequest(name=name, expected_digest=digest)
        with _PEER.errors():
            await self._fetches.UndoFetch(request, timeout=timeout_s)

    async def pin(
        self, instance_id: str, instance_name: str, image: str, digest: str, timeout_s: float
    ) -> InstanceImage:
        request = internal_pb2.PinImageRequest(
            instance_id=instance_id, instance_name=instance_name, image_name=image, expected_digest=digest
        )
        try:
            with _PEER.errors():
                answer = await self._pins.PinImage(request, timeout=timeout_s)
        except PeerRefused as exc:
            if exc.reason == "IMAGE_NOT_FOUND":
                raise ImageNotFound(image) from exc
            if exc.reason == "IMAGE_DIGEST_MISMATCH":
                actual = exc.refusal.metadata.get("actual", "another one")
                raise ImageDigestMismatch(image, digest, actual) from exc
            raise
        return _image_of(answer.image)

    async def unpin(self, instance_id: str, timeout_s: float) -> None:
        request = internal_pb2.UnpinImageRequest(instance_id=instance_id)
        with _PEER.errors():
            await self._pins.UnpinImage(request, timeout=timeout_s)

    async def ping(self) -> None:
        with _PEER.errors():
            await self._images.ListImages(image_pb2.ListImagesRequest(page_size=1), timeout=_FIND_S)

    async def watch(self, cursor: str) -> AsyncIterator[ImageEvent]:
        # No deadline: the channel's keepalive notices a peer that is frozen or cut off.
        call = self._pins.WatchImages(internal_pb2.WatchImagesRequest(cursor=cursor))
        async for message in _PEER.messages(call, idle_s=None):
            event = message.event
            resource = json_format.MessageToDict(event.resource)
            yield ImageEvent(event.cursor, event.time.ToDatetime(UTC), event.type, resource)


def _found(message: image_pb2.Image) -> StoreImage:
    labels = dict(message.labels)
    has_agent = labels.get(_AGENT_LABEL, "") != _NO_AGENT
    return StoreImage(_image_of(message), message.arch, labels, has_agent)


def _fetch(wish: FetchWish) -> fetch_pb2.FetchImageRequest:
    return fetch_pb2.FetchImageRequest(
        name=wish.name,
        url=wish.url,
        expected_digest=wish.digest,
        labels=wish.labels,
        arch=wish.arch,
        if_none_match="*" if wish.only_new else "",
    )


def _image_of(message: image_pb2.Image) -> InstanceImage:
    return InstanceImage(
        message.name, message.digest, message.stored_digest, message.format, message.virtual_size_bytes
    )
