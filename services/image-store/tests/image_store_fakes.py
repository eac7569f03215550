"""A blob store in memory that can be full or away, for faults that a real one does not give on demand."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from image_store.admission import ByteSource
from image_store.digest import Digest, digest_of_hex
from image_store.errors import ImageNotFoundError, StoreFullError, StoreUnavailableError
from image_store_disks import Bytes

T = TypeVar("T")


class MemoryBlobStore:
    """A `BlobStore`; holds at most `capacity_bytes`, uploads included."""

    def __init__(self, capacity_bytes: int = 1 << 40) -> None:
        self.capacity_bytes = capacity_bytes
        self.blobs: dict[Digest, bytes] = {}
        self.uploads: set[MemoryUpload] = set()
        self.fault = ""

    @asynccontextmanager
    async def upload(self, expected_bytes: int | None) -> "AsyncIterator[MemoryUpload]":
        self.make_room(expected_bytes or 0)
        upload = MemoryUpload(self)
        self.uploads.add(upload)
        try:
            yield upload
        finally:
            self.uploads.discard(upload)

    @asynccontextmanager
    async def open(self, digest: Digest) -> "AsyncIterator[MemoryReader]":
        if digest not in self.blobs:
            raise ImageNotFoundError(digest)
        yield MemoryReader(self.blobs[digest])

    async def delete(self, digest: Digest) -> None:
        self.blobs.pop(digest, None)

    async def digests(self) -> frozenset[Digest]:
        return frozenset(self.blobs)

    async def remove_leftovers(self) -> int:
        return 0

    async def check(self) -> None:
        if self.fault:
            raise StoreUnavailableError(self.fault)

    def make_room(self, count: int) -> None:
        used = sum(map(len, self.blobs.values())) + sum(len(upload.content) for upload in self.uploads)
        if used + count > self.capacity_bytes:
            raise StoreFullError


class MemoryUpload:
    def __init__(self, store: MemoryBlobStore) -> None:
        self._store = store
        self.content = b""

    async def write(self, chunk: bytes) -> None:
        self._store.make_room(len(chunk))
        self.content += chunk

    async def seal(self) -> Digest:
        return digest_of_hex(hashlib.sha256(self.content).hexdigest())

    async def examine(self, work: Callable[[ByteSource], T]) -> T:
        return work(Bytes(self.content))

    async def settle(self) -> None:
        return

    async def publish(self) -> None:
        self._store.blobs[await self.seal()] = self.content


class MemoryReader:
    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    async def read_at(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]
