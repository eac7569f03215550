"""The compressed forms that are unpacked, and one interface to their decompressors."""

import lzma
import zlib
from enum import StrEnum
from typing import Final, Protocol

from backports import zstd

MAGIC_BYTES: Final = 6
# What xz -9 and zstd --ultra --long=27 need; more would let the sender choose how much memory is taken.
_XZ_MEMORY_BYTES: Final = 128 * 1024 * 1024
_ZSTD_WINDOW_LOG: Final = 27
# A gzip header and trailer around the deflated data (zlib's manual, inflateInit2).
_GZIP_WINDOW_BITS: Final = 16 + zlib.MAX_WBITS


class Compression(StrEnum):
    """How bytes are compressed."""

    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"


_MAGIC: Final = {
    Compression.GZIP: b"\x1f\x8b",
    Compression.XZ: b"\xfd7zXZ\0",
    Compression.ZSTD: b"\x28\xb5\x2f\xfd",
}

DECOMPRESSION_ERRORS: Final = (zlib.error, lzma.LZMAError, zstd.ZstdError)
"""What decompressors say of damaged data."""


class Decompressor(Protocol):
    """Unpacks one stream: a gzip member, an xz stream, a zstd frame."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether more can come only from more input."""

    @property
    def unused_data(self) -> bytes:
        """What came behind the end of the stream."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most `max_length` bytes of what `data`, and what came before, unpack to."""


class _GzipDecompressor:
    """Gives zlib's object the interface that the other two have."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP_WINDOW_BITS)
        self._more = False

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._more and not self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        # All input may be taken while output still waits inside.
        self._more = bool(self._inflate.unconsumed_tail) or len(unpacked) == max_length
        return unpacked


def compression_of(head: bytes) -> Compression | None:
    """Return how what begins with `head` (`MAGIC_BYTES`, or all if there are fewer) is compressed."""
    return next((kind for kind, magic in _MAGIC.items() if head.startswith(magic)), None)


def decompressor_of(kind: Compression) -> Decompressor:
    """Return a decompressor for one stream."""
    match kind:
        case Compression.GZIP:
            return _GzipDecompressor()
        case Compression.XZ:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        case Compression.ZSTD:
            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
            return zstd.ZstdDecompressor(options=options)
