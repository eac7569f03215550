"""A `BlobStore` in a bucket."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Final, Self

from image_store.blobs.s3.address import S3Address
from image_store.blobs.s3.bucket import Bucket
from image_store.blobs.s3.errors import s3_errors
from image_store.blobs.s3.objects import DataId, Objects, data_key, new_id
from image_store.blobs.s3.reading import S3Reader
from image_store.blobs.s3.upload import S3Upload, part_bytes_for
from image_store.blobs.threads import Threads
from image_store.digest import Digest
from image_store.errors import ImageNotFoundError, ImageStoreError, StoreFullError, StoreUnavailableError

_LOG = logging.getLogger(__name__)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html; MinIO has the same limit.
_LARGEST_BYTES: Final = 5 * 1024**4


class S3BlobStore:
    """An async context manager; nothing is asked of the service on entry.

    It must be the only writer below the address's prefix: what it does not know there, it removes. So it
    works there for its `owner` (an ASCII word) only, and not where another's word stands.
    """

    def __init__(self, address: S3Address, largest_upload_bytes: int, owner: str) -> None:
        """Keep blobs at `address`, none larger than `largest_upload_bytes`."""
        self._owner = owner
        self._is_claimed = False
        self._bucket = Bucket(address)
        self._objects = Objects(self._bucket)
        self._threads = Threads("s3", s3_errors)
        # Of its own: calls that wait for a service that does not answer may have all of the others.
        self._probing = Threads("s3-probe", s3_errors)
        self._part_bytes = part_bytes_for(min(largest_upload_bytes, _LARGEST_BYTES))
        self._running: set[DataId] = set()
        # What could not be removed when it should have been; None: the bytes of a deleted blob.
        self._left: dict[DataId, S3Upload | None] = {}
        self._readers: Counter[DataId] = Counter()
        # Deleted blobs whose bytes somebody still reads.
        self._unnamed: set[DataId] = set()

    async def __aenter__(self) -> Self:
        # What becomes of a call is told by its error, once, and not with every attempt.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._threads.__aexit__(kind, exc, trace)
        await self._probing.__aexit__(kind, exc, trace)

    @asynccontextmanager
    async def upload(self, expected_bytes: int | None) -> AsyncIterator[S3Upload]:
        if expected_bytes is not None and expected_bytes > _LARGEST_BYTES:
            raise StoreFullError
        await self._claim()
        upload = S3Upload(self._objects, self._threads, new_id(), self._part_bytes)
        self._running.add(upload.data)
        try:
            yield upload
        finally:
            # Shielded: the caller may be cancelled again while the objects are being removed.
            await asyncio.shield(self._end(upload))

    @asynccontextmanager
    async def open(self, digest: Digest) -> AsyncIterator[S3Reader]:
        await self._claim()
        found = await self._threads.run(lambda: self._objects.find(digest))
        if found is None:
            raise ImageNotFoundError(digest)
        data, size_bytes = found
        self._readers[data] += 1
        try:
            yield S3Reader(self._bucket, self._threads, data_key(data), size_bytes)
        finally:
            self._readers[data] -= 1
            if not self._readers[data]:
                del self._readers[data]
                if data in self._unnamed:
                    self._unnamed.discard(data)
                    await asyncio.shield(self._remove(data))

    async def delete(self, digest: Digest) -> None:
        await self._claim()
        for data in await self._threads.run(lambda: self._objects.unname(digest)):
            if data in self._readers:
                self._unnamed.add(data)
            else:
                await self._remove(data)

    async def digests(self) -> frozenset[Digest]:
        await self._claim()
        return frozenset(digest for digest, _ in await self._threads.run(lambda: [*self._objects.names()]))

    async def remove_leftovers(self) -> int:
        await self._claim()
        written, announced = await self._threads.run(
            lambda: (self._objects.data(), self._objects.announced())
        )
        # Between the two looks: an upload that ends meanwhile is in this set, or has its name by the second.
        needed = self._running | set(self._readers)
        return await self._threads.run(lambda: self._objects.remove_others(written, announced, needed))

    async def check(self) -> None:
        try:
            await self._probing.run(self._bucket.check)
        except StoreUnavailableError:
            # What is there when it is back may be another's.
            self._is_claimed = False
            raise
        await self._claim()
        for data, upload in tuple(self._left.items()):
            try:
                if upload is not None:
                    await upload.end()
                else:
                    await self._threads.run(partial(self._bucket.remove, data_key(data)))
            except StoreFullError:
                continue
            self._left.pop(data, None)

    async def _claim(self) -> None:
        if not self._is_claimed:
            await self._threads.run(lambda: self._objects.claim(self._owner))
            self._is_claimed = True

    async def _end(self, upload: S3Upload) -> None:
        try:
            if upload.is_broken:
                # The caller has waited long enough to be told so; `check` does it when the service is back.
                self._left[upload.data] = upload
            else:
                await upload.end()
        except ImageStoreError as exc:
            self._left[upload.data] = upload
            _LOG.warning("upload not removed yet", extra={"data": upload.data, "detail": str(exc)})
        finally:
            self._running.discard(upload.data)

    async def _remove(self, data: DataId) -> None:
        try:
            await self._threads.run(partial(self._bucket.remove, data_key(data)))
        except ImageStoreError as exc:
            self._left[data] = None
            _LOG.warning("blob not removed yet", extra={"data": data, "detail": str(exc)})
