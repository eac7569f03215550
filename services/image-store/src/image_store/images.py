"""What is done with images that are there: shown, read, deleted, pinned."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from image_store.blobs.port import BlobReader, BlobStore
from image_store.catalogue.catalogue import Catalogue
from image_store.collector import Collector
from image_store.digest import Digest
from image_store.errors import RangeError
from image_store.image import Blob, Image, ImageName, InstanceId, Pin, Preconditions
from image_store.last_steps import LastSteps
from image_store.requests import ImageFilter
from image_store.tokens import page_token, parse_page_token

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """Open bytes of a blob."""

    blob: Blob
    reader: BlobReader

    async def chunks(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """Yield the bytes from `offset`, `length` of them (None: all), at most 1 MiB at a time."""
        end = self.reader.size_bytes if length is None else min(offset + length, self.reader.size_bytes)
        while offset < end:
            chunk = await self.reader.read_at(offset, min(CHUNK_BYTES, end - offset))
            if not chunk:
                return
            offset += len(chunk)
            yield chunk


class Images:
    """The store's calls but the upload."""

    def __init__(
        self, blobs: BlobStore, catalogue: Catalogue, collector: Collector, last_steps: LastSteps
    ) -> None:
        self._blobs = blobs
        self._catalogue = catalogue
        self._collector = collector
        self._last_steps = last_steps

    async def get(self, name: str) -> Image:
        """Return the image called `name`.

        Raises:
            ImageNotFoundError: There is none.
        """
        return await self._catalogue.get(name)

    async def find(self, digest: Digest) -> Image | None:
        """Return the first image, by name, of the bytes `digest` as they came; None if there is none."""
        return await self._catalogue.find(digest)

    async def page(self, image_filter: ImageFilter, page_size: int, token: str) -> tuple[list[Image], str]:
        """Return a page of images, ordered by name, and the token of the next ("" after the last).

        A page of 0 has the default size. Images that come or go between two pages move no other.

        Raises:
            PageTokenError: The token is none of this filter's.
        """
        after = parse_page_token(token, image_filter)
        limit = min(page_size or DEFAULT_PAGE, MAX_PAGE)
        images, more = await self._catalogue.page(image_filter, after, limit)
        return images, page_token(image_filter, images[-1].name) if more else ""

    async def delete(self, name: str, request_id: str, preconditions: Preconditions) -> bool:
        """Delete an image; tell whether an earlier request with this key did it.

        Raises:
            ImageNotFoundError: There is none.
            ImageInUseError: Instances use it.
            PreconditionFailedError: It is not in the expected version.
            KeyReusedError: The key came with another request.
        """

        async def commit() -> bool:
            deleted = await self._catalogue.delete(name, request_id, preconditions)
            if deleted.released is not None:
                await self._collector.collect(deleted.released)
            return deleted.replayed

        return await self._last_steps.run(commit())

    async def pin(
        self, instance_id: InstanceId, instance_name: str, image_name: ImageName, digest: Digest | None
    ) -> tuple[Pin, Image]:
        """Resolve a name and keep its blob for an instance; see `Catalogue.pin`."""
        return await self._catalogue.pin(instance_id, instance_name, image_name, digest)

    async def unpin(self, instance_id: InstanceId) -> None:
        """Let go of what the instance holds, if it holds anything."""

        async def commit() -> None:
            released = await self._catalogue.unpin(instance_id)
            if released is not None:
                await self._collector.collect(released)

        await self._last_steps.run(commit())

    async def pins(self) -> list[Pin]:
        """Return all pins."""
        return await self._catalogue.pins()

    @asynccontextmanager
    async def open(self, stored_digest: Digest, offset: int) -> AsyncIterator[Content]:
        """Open a blob that is to be read from `offset`, which may be its very end.

        Raises:
            ImageNotFoundError: There is no such blob.
            RangeError: It ends before `offset`.
        """
        blob = await self._catalogue.blob(stored_digest)
        async with self._blobs.open(stored_digest) as reader:
            if offset > reader.size_bytes:
                raise RangeError(reader.size_bytes)
            yield Content(blob, reader)
