"""console.log: read by offset, bounded by holes.

QEMU appends, whether a runner listens or not. What is beyond the limit is given back to the file
system without moving anything, so offsets mean the same for ever.

Source: fallocate(2).
"""

import ctypes
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from qemu_runner.store.threads import in_thread

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_BLOCK: Final = 4096
_MOST_MARGIN_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024
# What is parsed at once, in the loop: a backlog must not keep it for long.
_BITE_BYTES: Final = 16 * 1024
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ConsoleChunk:
    """A piece of the log.

    Attributes:
        offset: Of its first byte.
        data: Its bytes.
        total_bytes: Length of the log then.
        first_kept: Offset of the first byte that is still there.
    """

    offset: int
    data: bytes
    total_bytes: int
    first_kept: int


class ConsoleLog:
    """The console log of one machine.

    Args:
        path: The file; it need not exist.
        limit_bytes: How much of its end is kept.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        # What may not be read any more stays a while: a reader who began just before must not meet a hole.
        self._margin_bytes = min(limit_bytes // 4, _MOST_MARGIN_BYTES)

    async def read(self, offset: int, length: int) -> AsyncGenerator[ConsoleChunk, None]:
        """Yield the log from `offset` (negative: from the end) to the end as it is now.

        What has been given back is skipped: the chunks' offsets tell. An empty log is one empty
        chunk. A length of 0 means no limit.
        """
        size = await in_thread(self._size)
        wanted = self.begin(offset, size)
        begin = max(wanted, self._kept_from(size))
        end = min(size, wanted + length) if length else size
        if begin >= end:
            yield ConsoleChunk(begin, b"", size, self._kept_from(size))
        told = begin >= end
        while begin < end:
            chunk = await self.chunk(begin, end - begin)
            # As long as the log was: who has been told a length gets no more, however it grows.
            data = chunk.data[: max(0, end - chunk.offset)]
            if data or not told:
                yield ConsoleChunk(chunk.offset, data, size, chunk.first_kept)
            if not data:
                return
            told = True
            begin = chunk.offset + len(data)

    @staticmethod
    def begin(offset: int, size: int) -> int:
        """Return where a reading from `offset` begins in a log that is so long."""
        return max(size + offset, 0) if offset < 0 else min(offset, size)

    async def chunk(self, offset: int, length: int = CHUNK_BYTES) -> ConsoleChunk:
        """Return at most `length` bytes at `offset`, or behind it where that has been given back."""
        return await in_thread(self._chunk, offset, length)

    async def read_chunk(self, offset: int) -> bytes:
        """Return some bytes at `offset`; none at the end."""
        return await in_thread(self._read, offset, _BITE_BYTES)

    async def size(self) -> int:
        """Return how long it is now."""
        return await in_thread(self._size)

    async def last_write(self) -> tuple[int, datetime | None]:
        """Return how long it is, and when it became so (UTC); None where there is no log."""
        return await in_thread(self._last_write)

    async def first_kept(self, offset: int) -> int:
        """Return `offset`, or where the log begins by now if that is later."""
        return max(offset, self._kept_from(await in_thread(self._size)))

    async def trim(self) -> None:
        """Give back what is beyond the limit."""
        await in_thread(self._trim)

    def _kept_from(self, size: int) -> int:
        return max(0, size - self._limit_bytes) // _BLOCK * _BLOCK

    def _given_back(self, size: int) -> int:
        return self._kept_from(max(0, size - self._margin_bytes))

    def _size(self) -> int:
        return self._last_write()[0]

    def _last_write(self) -> tuple[int, datetime | None]:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return 0, None
        return status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)

    def _chunk(self, offset: int, length: int) -> ConsoleChunk:
        size = self._size()
        begin = max(offset, self._kept_from(size))
        data = self._read(begin, min(length, CHUNK_BYTES))
        # Zeros of a hole are nobody's words: what was given back meanwhile is left out.
        after = self._size()
        lost = self._given_back(after) - begin
        if lost > 0:
            begin, data = begin + lost, self._read(begin + lost, min(length, CHUNK_BYTES))
        return ConsoleChunk(begin, data, max(after, begin + len(data)), self._kept_from(after))

    def _read(self, offset: int, length: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except FileNotFoundError:
            return b""

    def _trim(self) -> None:
        back = self._given_back(self._size())
        if not back:
            return
        with self.path.open("r+b") as file:
            done: int = _libc.fallocate(
                file.fileno(), _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(back)
            )
        if done < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.path))
