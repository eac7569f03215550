"""console.log: read by offset, bounded by holes.

QEMU appends, whether a runner listens or not. What is beyond the limit is given back to the file
system without moving anything, so offsets mean the same for ever.

Source: fallocate(2).
"""

import ctypes
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_runner.store.threads import in_thread

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_BLOCK: Final = 4096
_CHUNK_BYTES: Final = 256 * 1024
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ConsoleChunk:
    """A piece of the log.

    Attributes:
        offset: Of its first byte.
        data: Its bytes.
        total_bytes: Length of the log then.
    """

    offset: int
    data: bytes
    total_bytes: int


class ConsoleLog:
    """The console log of one machine.

    Args:
        path: The file; it need not exist.
        limit_bytes: How much of its end is kept.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self._limit_bytes = limit_bytes

    async def read(self, offset: int, length: int) -> AsyncGenerator[ConsoleChunk, None]:
        """Yield the log from `offset` (negative: from the end) to the end as it is now.

        What has been given back is skipped: the first chunk's offset tells. An empty log is one empty
        chunk. A length of 0 means no limit.
        """
        size = await in_thread(self._size)
        begin = max(size + offset, 0) if offset < 0 else min(offset, size)
        begin = max(begin, self._kept_from(size))
        end = min(size, begin + length) if length else size
        if begin >= end:
            yield ConsoleChunk(begin, b"", size)
        while begin < end:
            data = await in_thread(self._read, begin, min(_CHUNK_BYTES, end - begin))
            if not data:
                return
            yield ConsoleChunk(begin, data, size)
            begin += len(data)

    async def read_chunk(self, offset: int) -> bytes:
        """Return some bytes at `offset`; none at the end."""
        return await in_thread(self._read, offset, _CHUNK_BYTES)

    async def size(self) -> int:
        """Return how long it is now."""
        return await in_thread(self._size)

    async def first_kept(self, offset: int) -> int:
        """Return `offset`, or where the log begins by now if that is later."""
        return max(offset, self._kept_from(await in_thread(self._size)))

    async def trim(self) -> None:
        """Give back what is beyond the limit."""
        await in_thread(self._trim)

    def _kept_from(self, size: int) -> int:
        return max(0, size - self._limit_bytes) // _BLOCK * _BLOCK

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def _read(self, offset: int, length: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except FileNotFoundError:
            return b""

    def _trim(self) -> None:
        kept = self._kept_from(self._size())
        if not kept:
            return
        with self.path.open("r+b") as file:
            done: int = _libc.fallocate(
                file.fileno(), _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(kept)
            )
        if done < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.path))
