"""Blobs as files of a directory: `uploads/<id>` on the way in, `blobs/sha256/<aa>/<hex>` when they are there.

It alone writes below its directory. Every system call that can wait for a disk runs in threads.
"""

import asyncio
import errno
import hashlib
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from image_store.admission import ByteSource
from image_store.blobs.disk_errors import disk_errors
from image_store.blobs.threads import Threads
from image_store.digest import ALGORITHM, Digest, digest_of_hex, hex_of, parse_digest
from image_store.errors import ImageNotFoundError, StoreFullError

T = TypeVar("T")


class DirectoryBlobStore:
    """A `BlobStore`; an async context manager that makes its directories on entry."""

    def __init__(self, directory: Path) -> None:
        """Keep blobs below `directory`, which is one file system."""
        self._uploads = directory / "uploads"
        self._blobs = directory / "blobs" / ALGORITHM
        self._threads = Threads("disk", disk_errors)
        self._running: set[str] = set()

    async def __aenter__(self) -> Self:
        await self._threads.__aenter__()
        await self._threads.run(self._make_directories)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._threads.__aexit__(kind, exc, trace)

    @asynccontextmanager
    async def upload(self, expected_bytes: int | None) -> AsyncIterator["DirectoryUpload"]:
        if expected_bytes is not None:
            await self._threads.run(lambda: self._check_room(expected_bytes))
        name = uuid.uuid4().hex
        upload = DirectoryUpload(self._uploads / name, self._place, self._threads)
        self._running.add(name)
        try:
            await upload.open()
            yield upload
        finally:
            # Shielded: the caller may be cancelled again while its file is being removed.
            await asyncio.shield(self._end(name, upload))

    @asynccontextmanager
    async def open(self, digest: Digest) -> AsyncIterator["DirectoryReader"]:
        reader = DirectoryReader(self._place(digest), self._threads)
        try:
            try:
                await reader.open()
            except FileNotFoundError as exc:
                raise ImageNotFoundError(digest) from exc
            yield reader
        finally:
            await asyncio.shield(reader.close())

    async def delete(self, digest: Digest) -> None:
        await self._threads.run(lambda: self._place(digest).unlink(missing_ok=True))

    async def digests(self) -> frozenset[Digest]:
        return await self._threads.run(self._list)

    async def remove_leftovers(self) -> int:
        return await self._threads.run(self._sweep)

    async def check(self) -> None:
        await self._threads.run(self._make_directories)

    async def _end(self, name: str, upload: "DirectoryUpload") -> None:
        try:
            await upload.discard()
        finally:
            self._running.discard(name)

    def _place(self, digest: Digest) -> Path:
        digits = hex_of(digest)
        return self._blobs / digits[:2] / digits

    def _make_directories(self) -> None:
        for directory in (self._uploads, self._blobs):
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), directory)

    def _check_room(self, expected_bytes: int) -> None:
        file_system = os.statvfs(self._uploads)
        if expected_bytes > file_system.f_bavail * file_system.f_frsize:
            raise StoreFullError

    def _list(self) -> frozenset[Digest]:
        found = (parse_digest(f"{ALGORITHM}:{path.name}") for path in self._blobs.glob("??/*"))
        return frozenset(digest for digest in found if digest is not None)

    def _sweep(self) -> int:
        leftovers = [path for path in list(self._uploads.iterdir()) if path.name not in self._running]
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)


class _OpenFile:
    """A descriptor that is used and closed under a lock.

    The lock is for cancelled callers: the thread of the call that they left still works when they close.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._descriptor = -1
        self._closed = False

    def open(self, flags: int) -> int:
        """Open the file and return its size."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._descriptor = os.open(self.path, flags | os.O_CLOEXEC, 0o640)
            return os.fstat(self._descriptor).st_size

    def use(self, work: Callable[[int], T]) -> T:
        """Run `work` with the descriptor; EBADF if the file was closed."""
        with self._lock:
            return work(self._descriptor)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


class DirectoryUpload:
    """One file below `uploads/`; see `BlobUpload`."""

    def __init__(self, path: Path, place: Callable[[Digest], Path], threads: Threads) -> None:
        self._file = _OpenFile(path)
        self._place = place
        self._threads = threads
        self._hash = hashlib.sha256()

    async def open(self) -> None:
        """Make the file."""
        await self._threads.run(lambda: self._file.open(os.O_RDWR | os.O_CREAT | os.O_EXCL))

    async def write(self, chunk: bytes) -> None:
        await self._threads.run(lambda: self._file.use(lambda descriptor: self._append(descriptor, chunk)))

    async def seal(self) -> Digest:
        return self._digest()

    async def examine(self, work: Callable[[ByteSource], T]) -> T:
        return await self._threads.run(
            lambda: self._file.use(lambda descriptor: work(_DescriptorSource(descriptor)))
        )

    async def settle(self) -> None:
        await self._threads.run(lambda: self._file.use(os.fsync))

    async def publish(self) -> None:
        await self._threads.run(self._publish)

    async def discard(self) -> None:
        """Close the file and remove it, unless it was published."""
        await self._threads.run(self._discard)

    def _append(self, descriptor: int, chunk: bytes) -> None:
        self._hash.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(descriptor, view) :]

    def _digest(self) -> Digest:
        return digest_of_hex(self._hash.hexdigest())

    def _publish(self) -> None:
        place = self._place(self._digest())
        if place.exists():
            return
        if not place.parent.exists():
            place.parent.mkdir(exist_ok=True)
            _sync_directory(place.parent.parent)
        self._file.path.rename(place)
        _sync_directory(place.parent)

    def _discard(self) -> None:
        self._file.close()
        self._file.path.unlink(missing_ok=True)


class DirectoryReader:
    """An open blob; see `BlobReader`."""

    def __init__(self, path: Path, threads: Threads) -> None:
        self._file = _OpenFile(path)
        self._threads = threads
        self._size_bytes = 0

    async def open(self) -> None:
        """Open the file."""
        self._size_bytes = await self._threads.run(lambda: self._file.open(os.O_RDONLY))

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    async def read_at(self, offset: int, length: int) -> bytes:
        return await self._threads.run(
            lambda: self._file.use(lambda descriptor: os.pread(descriptor, length, offset))
        )

    async def close(self) -> None:
        """Close the file."""
        await self._threads.run(self._file.close)


class _DescriptorSource:
    """A `ByteSource` over an open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size_bytes = os.fstat(descriptor).st_size

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)


def _sync_directory(path: Path) -> None:
    """Make names in `path` survive a power loss (fsync(2), NOTES)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
