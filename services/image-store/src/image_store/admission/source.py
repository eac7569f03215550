"""Where admission reads from: random access to bytes that are all there."""

from typing import Final, Protocol

# Enough for a qcow2 header with its extensions, for partition tables and for every magic in formats.py.
HEAD_BYTES: Final = 64 * 1024


class ByteSource(Protocol):
    """Complete bytes that nobody changes any more."""

    @property
    def size_bytes(self) -> int:
        """Number of bytes."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes at `offset`, fewer than `length` only at the end. Blocks."""
        ...
