"""One compressed upload being unpacked, in pieces of bounded size and up to a bounded size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from image_store.errors import CompressionDamagedError, UnpackedTooLargeError
from image_store.unpacking.compression import (
    DECOMPRESSION_ERRORS,
    Compression,
    Decompressor,
    decompressor_of,
)

_PIECE_BYTES: Final = 1024 * 1024
# Formats whose streams may be followed by zeros: xz by its specification, gzip on media with blocks.
_PADDED: Final = frozenset({Compression.GZIP, Compression.XZ})


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """How large compressed data may become.

    Attributes:
        max_bytes: In all.
        max_ratio: Times as many as came…
        free_bytes: …once there are more than this.
    """

    max_bytes: int
    max_ratio: int
    free_bytes: int


class Unpacker:
    """Unpacks what it is given; streams may follow one another, as their tools allow."""

    def __init__(self, kind: Compression, limits: UnpackLimits) -> None:
        self._kind = kind
        self._limits = limits
        self._stream: Decompressor | None = None
        self._began = False
        self._taken = 0
        self._made = 0

    @property
    def made(self) -> int:
        """Bytes unpacked so far."""
        return self._made

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what `chunk` unpacks to, at most 1 MiB at a time. Blocks while it computes.

        Raises:
            CompressionDamagedError: It is not what its first bytes promised.
            UnpackedTooLargeError: It becomes too large.
        """
        self._taken += len(chunk)
        data = chunk
        while (stream := self._stream or self._begin(data := self._without_padding(data))) is not None:
            try:
                piece = stream.decompress(data, _PIECE_BYTES)
            except (*DECOMPRESSION_ERRORS, EOFError) as exc:
                raise CompressionDamagedError(self._kind, str(exc)) from exc
            data = b""
            if piece:
                self._count(len(piece))
                yield piece
            if stream.eof:
                data, self._stream = stream.unused_data, None
            elif stream.needs_input:
                return

    def finish(self) -> None:
        """Make sure that the data ended where its last stream did.

        Raises:
            CompressionDamagedError: It is cut off.
        """
        if self._stream is not None or not self._began:
            raise CompressionDamagedError(self._kind, "it is cut off")

    def _without_padding(self, data: bytes) -> bytes:
        return data.lstrip(b"\0") if self._began and self._kind in _PADDED else data

    def _begin(self, data: bytes) -> Decompressor | None:
        """Return the decompressor of the stream that `data` begins, None if there is nothing."""
        if data:
            self._stream, self._began = decompressor_of(self._kind), True
        return self._stream

    def _count(self, size: int) -> None:
        self._made += size
        limits = self._limits
        if self._made > limits.max_bytes:
            raise UnpackedTooLargeError(limits.max_bytes, None)
        if self._made > limits.free_bytes and self._made > self._taken * limits.max_ratio:
            raise UnpackedTooLargeError(limits.max_bytes, limits.max_ratio)
