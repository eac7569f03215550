"""An upload into a bucket: parts while the bytes come, at most two of them in memory."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final, TypeVar

from minio.datatypes import Part

from image_store.admission import ByteSource
from image_store.blobs.s3.bucket import MAX_PARTS
from image_store.blobs.s3.objects import DataId, Objects, data_key
from image_store.blobs.s3.reading import BlockSource
from image_store.blobs.threads import Threads
from image_store.digest import Digest, digest_of_hex
from image_store.errors import StoreUnavailableError

T = TypeVar("T")

_PART_BYTES: Final = 8 * 1024 * 1024


def part_bytes_for(largest_bytes: int) -> int:
    """Return the size of the parts in which so many bytes can be written."""
    return max(_PART_BYTES, -(-largest_bytes // MAX_PARTS))


class S3Upload:
    """See `BlobUpload`. Once a call found the service away, `is_broken` says so."""

    def __init__(self, objects: Objects, threads: Threads, data: DataId, part_bytes: int) -> None:
        """Write the bytes as `data`; what fits into one part is written in one request."""
        self._objects = objects
        self._threads = threads
        self._part_bytes = part_bytes
        self._key = data_key(data)
        self._hash = hashlib.sha256()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._size_bytes = 0
        self._pending = ""
        self._parts: list[Part] = []
        self._sending: asyncio.Task[None] | None = None
        self._sent = False
        self._in_parts = False
        self._digest: Digest | None = None
        self._named: bool | None = False
        self.data = data
        self.is_broken = False

    async def write(self, chunk: bytes) -> None:
        self._held.append(chunk)
        self._held_bytes += len(chunk)
        self._size_bytes += len(chunk)
        if self._held_bytes >= self._part_bytes:
            await self._landed()
            chunks, self._held, self._held_bytes = self._held, [], 0
            self._sending = asyncio.create_task(self._run(lambda: self._send(chunks)))

    async def seal(self) -> Digest:
        await self._landed()
        await self._run(self._complete)
        self._digest = digest_of_hex(self._hash.hexdigest())
        return self._digest

    async def examine(self, work: Callable[[ByteSource], T]) -> T:
        source = BlockSource(self._objects.bucket, self._key, self._size_bytes)
        return await self._run(lambda: work(source))

    async def settle(self) -> None:
        """Do nothing: the service has confirmed the bytes, and answers for their durability."""

    async def publish(self) -> None:
        digest = self._digest
        assert digest is not None, "publish comes after seal"  # noqa: S101 - the order is the port's contract
        self._named = None
        self._named = await self._run(lambda: self._objects.publish(digest, self.data))

    async def end(self) -> None:
        """Remove what is not needed any more: everything, unless it was published.

        Raises:
            StoreUnavailableError: It could not be removed now.
        """
        if self._sending is not None:
            await asyncio.wait({self._sending})
            if not self._sending.cancelled():
                self._sending.exception()
        if self._sent:
            await self._run(self._tidy)

    async def _landed(self) -> None:
        """Wait for the part that is on its way."""
        if self._sending is not None:
            # Shielded: a thread that works cannot be cancelled, and its outcome is asked for again.
            await asyncio.shield(self._sending)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._threads.run(work)
        except StoreUnavailableError:
            self.is_broken = True
            self._held.clear()
            raise

    def _send(self, chunks: list[bytes]) -> None:
        self._sent = self._in_parts = True
        content = b"".join(chunks)
        chunks.clear()
        self._hash.update(content)
        if not self._pending:
            self._pending = self._objects.announce(self.data)
        number = len(self._parts) + 1
        self._parts.append(self._objects.bucket.put_part(self._key, self._pending, number, content))

    def _complete(self) -> None:
        if self._in_parts:
            if self._held:
                self._send(self._held)
            self._objects.bucket.complete(self._key, self._pending, self._parts)
            return
        self._sent = True
        content = b"".join(self._held)
        self._held = []
        self._hash.update(content)
        self._objects.bucket.put(self._key, content)

    def _tidy(self) -> None:
        named = self._named
        if named is None:
            # The service did not say what became of the commit.
            assert self._digest is not None  # noqa: S101 - as in publish
            named = self._objects.is_named(self._digest, self.data)
        self._objects.tidy(self.data, named=named, in_parts=self._in_parts)
