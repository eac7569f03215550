"""Removing blobs that neither a name nor a pin needs, safe against uploads of the same content."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from image_store.blobs.port import BlobStore
from image_store.catalogue.catalogue import Catalogue
from image_store.digest import Digest
from image_store.errors import ImageStoreError

_LOG = logging.getLogger(__name__)


class Collector:
    """Deletes blobs. A digest's lock keeps its delete and the end of its upload apart."""

    def __init__(self, blobs: BlobStore, catalogue: Catalogue) -> None:
        self._blobs = blobs
        self._catalogue = catalogue
        self._locks: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def keeping(self, digest: Digest) -> AsyncIterator[None]:
        """Let nothing delete the blob inside; by the end the catalogue must know who needs it."""
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            yield

    async def collect(self, digest: Digest) -> None:
        """Delete the blob if nothing needs it.

        A failure is logged and left to the next start: the caller's own change has been committed.
        """
        try:
            async with self.keeping(digest):
                if await self._catalogue.forget_blob(digest):
                    await self._blobs.delete(digest)
        except ImageStoreError as exc:
            _LOG.warning("blob not collected", extra={"digest": digest, "detail": str(exc)})

    async def sweep(self) -> None:
        """Clean up: what uploads left that could not end properly, and blobs that nothing needs.

        For the start, and after the backend was away; uploads may run meanwhile.

        Raises:
            StoreUnavailableError: The backend or the catalogue cannot be used.
        """
        leftovers = await self._blobs.remove_leftovers()
        known = await self._catalogue.known_blobs()
        stored = await self._blobs.digests()
        for digest in stored | known:
            await self.collect(digest)
        lost = (known & await self._catalogue.known_blobs()) - stored
        if lost:
            _LOG.error("blobs are missing", extra={"digests": sorted(lost)})
        _LOG.info("swept", extra={"leftovers": leftovers, "blobs": len(stored)})
