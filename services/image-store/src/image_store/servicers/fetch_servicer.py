"""`ImageFetchService`: images from URLs, for the controller alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from qcontroller.image.v1 import fetch_pb2, fetch_pb2_grpc

from image_store.digest import Digest, parse_digest
from image_store.errors import Fault, InvalidRequestError
from image_store.fetching.fetches import Fetches, FetchWish
from image_store.fetching.source_url import SourceUrl
from image_store.image import Image, Preconditions
from image_store.images import Images
from image_store.requests import DIGEST_FAULT, parse_name, parse_upload
from image_store.servicers.convert import image_message

_PROGRESS_S: Final = 0.5


class FetchServicer(fetch_pb2_grpc.ImageFetchServiceServicer):
    """Serves the controller."""

    def __init__(self, fetches: Fetches, images: Images) -> None:
        self._fetches = fetches
        self._images = images

    async def CheckFetch(
        self, request: fetch_pb2.CheckFetchRequest, context: object
    ) -> fetch_pb2.CheckFetchResponse:
        """Refuse what would not be fetched."""
        del context
        wish = _wish(request.fetch)
        await self._fetches.check(wish.url)
        return fetch_pb2.CheckFetchResponse()

    async def FindImage(
        self, request: fetch_pb2.FindImageRequest, context: object
    ) -> fetch_pb2.FindImageResponse:
        """Show an image of a digest."""
        del context
        found = await self._images.find(_digest(request.digest, "/digest"))
        return fetch_pb2.FindImageResponse(image=None if found is None else image_message(found))

    async def FetchImage(
        self, request: fetch_pb2.FetchImageRequest, context: object
    ) -> AsyncIterator[fetch_pb2.FetchImageResponse]:
        """Fetch, telling how far it is; the fetch ends with the call."""
        del context
        wish = _wish(request)
        latest = (0, 0)

        def note(done: int, total: int | None) -> None:
            nonlocal latest
            latest = (done, total or 0)

        fetch = asyncio.ensure_future(self._fetches.fetch(wish, note))
        told = (0, 0)
        try:
            while not fetch.done():
                await asyncio.wait({fetch}, timeout=_PROGRESS_S)
                if latest != told:
                    told = latest
                    yield _progress(*told)
            image = fetch.result()
            if latest != told:
                yield _progress(*latest)
            yield fetch_pb2.FetchImageResponse(image=image_message(image))
        finally:
            await _ended(fetch)

    async def UndoFetch(
        self, request: fetch_pb2.UndoFetchRequest, context: object
    ) -> fetch_pb2.UndoFetchResponse:
        """Have no fetch at work, and nothing of it left."""
        del context
        digest = _digest(request.expected_digest, "/expectedDigest")
        await self._fetches.undo(parse_name(request.name), digest)
        return fetch_pb2.UndoFetchResponse()


def _wish(request: fetch_pb2.FetchImageRequest) -> FetchWish:
    """Return what is to be fetched.

    Raises:
        InvalidRequestError: With all faults.
    """
    faults: list[Fault] = []
    url, upload = None, None
    try:
        url = SourceUrl.parse(request.url)
    except InvalidRequestError as exc:
        faults += exc.faults
    for pointer, value in (("/name", request.name), ("/expectedDigest", request.expected_digest)):
        if not value:
            faults.append(Fault(pointer, "is required"))
    try:
        upload = parse_upload(
            name=request.name,
            expected_digest=request.expected_digest,
            content_length=0,
            labels=dict(request.labels),
            arch=request.arch,
            request_id="",
            preconditions=Preconditions(if_none_match=request.if_none_match),
        )
    except InvalidRequestError as exc:
        faults += exc.faults
    if faults or url is None or upload is None or upload.name is None:
        raise InvalidRequestError(faults)
    return FetchWish(upload.name, url, upload)


def _progress(done: int, total: int) -> fetch_pb2.FetchImageResponse:
    return fetch_pb2.FetchImageResponse(progress=fetch_pb2.FetchProgress(done_bytes=done, total_bytes=total))


async def _ended(fetch: "asyncio.Future[Image]") -> None:
    """End a fetch whose caller has gone; what it raises has been told, or nobody is there to be told."""
    fetch.cancel()
    await asyncio.gather(fetch, return_exceptions=True)


def _digest(text: str, pointer: str) -> Digest:
    digest = parse_digest(text)
    if digest is None:
        raise InvalidRequestError([Fault(pointer, DIGEST_FAULT)])
    return digest
