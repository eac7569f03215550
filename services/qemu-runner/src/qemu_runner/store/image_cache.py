"""images/<sha256>: base images on this host, read-only and addressed by content.

Fetches, verifies and evicts. A machine's own hard link keeps the bytes it runs from, so evicting never
takes a disk away; the cache only decides which bytes a next machine finds here.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

from qemu_runner.domain.machine import Image
from qemu_runner.errors import ImageCorruptError, ImageStoreUnavailableError
from qemu_runner.ports import BlobInfo, BlobSource
from qemu_runner.store.files import disk_errors, sync_directory
from qemu_runner.store.threads import in_thread

_LOG = logging.getLogger(__name__)
_PARTIAL_PREFIX: Final = ".fetch-"

Progress = Callable[[int, int], None]
"""Is told the bytes done and the bytes in all."""


class _Fetch:
    """A download in flight and those who wait for it."""

    def __init__(self) -> None:
        self.listeners: list[Progress] = []
        self.task: asyncio.Task[Path] | None = None

    def tell(self, done: int, total: int) -> None:
        for listener in self.listeners:
            listener(done, total)


class ImageCache:
    """The directory of base images.

    Args:
        state_dir: The runner's state directory.
        source: Where images come from.
        limit_bytes: Size above which unused images are evicted, the least recently used first.
    """

    def __init__(self, state_dir: Path, source: BlobSource, limit_bytes: int) -> None:
        self._directory = state_dir / "images"
        self._source = source
        self._limit_bytes = limit_bytes
        self._fetches: dict[str, _Fetch] = {}
        self._held: Counter[str] = Counter()

    async def create(self) -> None:
        """Make the directory and remove what broken fetches left."""
        await in_thread(self._create)

    @asynccontextmanager
    async def held(self, image: Image, progress: Progress) -> AsyncIterator[Path]:
        """Yield the image's file, fetched and verified if it is not here yet; it stays while the block runs.

        Those who want one image at a time share one download, which ends when the last of them goes.

        Raises:
            ImageNotFoundError: The store has no such blob.
            ImageStoreUnavailableError: The store is away or broke off.
            ImageCorruptError: What came has another digest.
            DiskFullError: There is no room.
        """
        self._held[image.sha256] += 1
        try:
            yield await self._fetch(image, progress)
        finally:
            self._held[image.sha256] -= 1

    async def _fetch(self, image: Image, progress: Progress) -> Path:
        path = self._directory / image.sha256
        if await in_thread(_touch, path):
            return path
        fetch = self._fetches.get(image.sha256)
        if fetch is None:
            fetch = self._fetches[image.sha256] = _Fetch()
            fetch.task = asyncio.create_task(self._download(image, fetch), name=f"fetch {image.sha256[:12]}")
            fetch.task.add_done_callback(lambda _: self._fetches.pop(image.sha256, None))
        task = fetch.task
        assert task is not None  # noqa: S101 - set where the fetch was made
        fetch.listeners.append(progress)
        try:
            return await asyncio.shield(task)
        finally:
            fetch.listeners.remove(progress)
            if not fetch.listeners and not task.done():
                task.cancel()
                # Its end is awaited: the next caller must not meet a half-removed file.
                await asyncio.wait({task})

    async def evict(self) -> None:
        """Remove unused images, the least recently used first, until the limit is kept."""
        await in_thread(self._evict, frozenset(+self._held))

    async def leftovers(self) -> list[Path]:
        """Return partial files that no fetch in flight writes."""
        if self._fetches:
            return []
        return await in_thread(lambda: sorted(self._directory.glob(f"{_PARTIAL_PREFIX}*")))

    async def _download(self, image: Image, fetch: _Fetch) -> Path:
        path = self._directory / image.sha256
        temporary = self._directory / f"{_PARTIAL_PREFIX}{image.sha256}-{secrets.token_hex(4)}"
        file = await in_thread(_open_new, temporary)
        digest = hashlib.sha256()
        total = done = 0
        try:
            async for part in self._source.read(image.stored_digest):
                if isinstance(part, BlobInfo):
                    total = part.size_bytes
                else:
                    await in_thread(_append, file, digest.update, part)
                    done += len(part)
                fetch.tell(done, total)
            _verify(image, f"sha256:{digest.hexdigest()}", done, total)
            await in_thread(_publish, file, temporary, path)
        except BaseException:
            await in_thread(_abandon, file, temporary)
            raise
        _LOG.info("image fetched", extra={"digest": image.stored_digest, "sizeBytes": done})
        await self.evict()
        return path

    def _create(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        # No machine's uid enters here: each has its own link to its own base.
        self._directory.chmod(0o700)
        for path in self._directory.glob(f"{_PARTIAL_PREFIX}*"):
            path.unlink()

    def _evict(self, held: frozenset[str]) -> None:
        files = [(path, path.stat()) for path in self._directory.iterdir() if not path.name.startswith(".")]
        size = sum(status.st_blocks * 512 for _, status in files)
        for path, status in sorted(files, key=lambda entry: entry[1].st_atime_ns):
            if size <= self._limit_bytes:
                return
            # More than one link: a machine runs from these bytes, and removing the name frees nothing.
            if status.st_nlink == 1 and path.name not in held:
                path.unlink()
                size -= status.st_blocks * 512
                _LOG.info("image evicted", extra={"digest": f"sha256:{path.name}"})


def _verify(image: Image, found: str, done: int, total: int) -> None:
    if total and done != total:
        raise ImageStoreUnavailableError(f"it sent {done} of {total} bytes")
    if found != image.stored_digest:
        raise ImageCorruptError(image.stored_digest, found)


def _touch(path: Path) -> bool:
    """Note the use of a file; False if there is none."""
    try:
        status = path.stat()
        os.utime(path, ns=(max(status.st_atime_ns + 1, time.time_ns()), status.st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def _open_new(path: Path) -> BinaryIO:
    with disk_errors(path):
        return path.open("xb", buffering=0)


def _append(file: BinaryIO, hashed: Callable[[bytes], None], data: bytes) -> None:
    hashed(data)
    with disk_errors(Path(file.name)):
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _publish(file: BinaryIO, temporary: Path, path: Path) -> None:
    with disk_errors(path):
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o444)
        file.close()
        temporary.replace(path)
        sync_directory(path.parent)
    # By the same clock as every later use: the kernel's own is some milliseconds behind it.
    _touch(path)


def _abandon(file: BinaryIO, temporary: Path) -> None:
    file.close()
    temporary.unlink(missing_ok=True)
