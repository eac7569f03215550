"""Fetches: downloads that are taken in as uploads are, one at a time for each name.

A fetch ends with its caller: whoever hangs up, or a crash of either side, leaves nothing but what was
committed before. Fail point: `fetch.begun` (the server has answered, no byte is stored).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from servicekit.failpoints import FailPoints, no_fail_points

from image_store.digest import Digest
from image_store.errors import (
    ImageInUseError,
    ImageNotFoundError,
    PreconditionFailedError,
    UploadTooLargeError,
)
from image_store.fetching.download import Download, Downloads
from image_store.fetching.source_url import SourceUrl
from image_store.image import Image, ImageName, Preconditions
from image_store.images import Images
from image_store.intake import UploadLimits
from image_store.requests import UploadEnd, UploadPart, UploadRequest
from image_store.uploads import Uploads

# Told how many bytes have come and, where that is known, how many there are.
Progress = Callable[[int, int | None], None]

# Each holds a connection, and threads while it writes; who comes later waits for a turn.
_AT_ONCE: Final = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FetchWish:
    """What is to be fetched: `upload` has the name and a digest."""

    name: ImageName
    url: SourceUrl
    upload: UploadRequest


class Fetches:
    """Brings images in from URLs."""

    def __init__(
        self,
        downloads: Downloads,
        uploads: Uploads,
        images: Images,
        limits: UploadLimits,
        fail_point: FailPoints = no_fail_points,
    ) -> None:
        self._downloads = downloads
        self._uploads = uploads
        self._images = images
        self._limits = limits
        self._fail_point = fail_point
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._locks: WeakValueDictionary[ImageName, asyncio.Lock] = WeakValueDictionary()

    async def check(self, url: SourceUrl) -> None:
        """Refuse a URL that no fetch would connect to.

        Raises:
            SourceForbiddenError: By the policy.
        """
        await self._downloads.check(url)

    async def fetch(self, wish: FetchWish, progress: Progress) -> Image:
        """Store what is at the URL.

        Raises:
            SourceError: It cannot be had.
            UploadTooLargeError: The server announces more than the limit, or more comes.
            ImageStoreError: As an upload.
        """
        async with self._lock(wish.name), self._turns, self._downloads.open(wish.url) as download:
            total = download.total_bytes
            if total is not None and total > self._limits.max_upload_bytes:
                raise UploadTooLargeError(self._limits.max_upload_bytes)
            self._fail_point("fetch.begun")
            async with aclosing(_parts(download, progress)) as parts:
                stored = await self._uploads.take(wish.upload, parts)
        extra = {"image": wish.name, "source": wish.url.shown, "digest": stored.image.digest}
        _log.info("fetched", extra=extra)
        return stored.image

    async def undo(self, name: ImageName, digest: Digest) -> None:
        """Have no fetch of `name` at work, and `name` not point to `digest` unless that is in use."""
        async with self._lock(name):
            try:
                image = await self._images.get(name)
                if image.digest == digest:
                    await self._images.delete(name, "", Preconditions(if_match=image.etag))
            except (ImageNotFoundError, ImageInUseError, PreconditionFailedError):
                return

    def _lock(self, name: ImageName) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


async def _parts(download: Download, progress: Progress) -> AsyncGenerator[UploadPart, None]:
    received = 0
    progress(received, download.total_bytes)
    async for chunk in download.chunks():
        received += len(chunk)
        yield chunk
        progress(received, download.total_bytes)
    yield UploadEnd(received)
