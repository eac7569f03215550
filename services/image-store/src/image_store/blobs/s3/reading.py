"""Reading objects: in a row with a look ahead, and here and there with a memory of what was just read."""

from collections import OrderedDict
from typing import Final

from image_store.blobs.s3.bucket import Bucket
from image_store.blobs.threads import Threads
from image_store.errors import UnsafeImageError

_AHEAD_BYTES: Final = 8 * 1024 * 1024
_BLOCK_BYTES: Final = 1024 * 1024
_BLOCKS: Final = 8
# An honest image of the largest size has some thousand tables. Each look costs a request, and an image made
# for it could ask for millions.
_MAX_REQUESTS: Final = 20_000


class S3Reader:
    """An open blob; see `BlobReader`. Holds what one request brought, 8 MiB once it is read in a row."""

    def __init__(self, bucket: Bucket, threads: Threads, key: str, size_bytes: int) -> None:
        self._bucket = bucket
        self._threads = threads
        self._key = key
        self._size_bytes = size_bytes
        self._begin = 0
        self._content = b""

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    async def read_at(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self._size_bytes - offset))
        if not length:
            return b""
        end = self._begin + len(self._content)
        if not self._begin <= offset <= offset + length <= end:
            in_a_row = bool(self._content) and offset == end
            wanted = min(max(length, _AHEAD_BYTES), self._size_bytes - offset) if in_a_row else length
            self._content = b""
            self._content = await self._threads.run(lambda: self._bucket.read(self._key, offset, wanted))
            self._begin = offset
        return self._content[offset - self._begin : offset - self._begin + length]


class BlockSource:
    """A `ByteSource` over an object. Blocks."""

    def __init__(self, bucket: Bucket, key: str, size_bytes: int, max_requests: int = _MAX_REQUESTS) -> None:
        self._bucket = bucket
        self._key = key
        self._size_bytes = size_bytes
        self._requests_left = max_requests
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes at `offset`.

        Raises:
            UnsafeImageError: Rule `scattered_tables`: so many reads are needed that they would not end.
        """
        length = max(0, min(length, self._size_bytes - offset))
        if not length:
            return b""
        first, last = offset // _BLOCK_BYTES, (offset + length - 1) // _BLOCK_BYTES
        if last - first >= _BLOCKS:
            return self._fetch(offset, length)
        content = b"".join(self._block(number) for number in range(first, last + 1))
        begin = offset - first * _BLOCK_BYTES
        return content[begin : begin + length]

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            begin = number * _BLOCK_BYTES
            block = self._fetch(begin, min(_BLOCK_BYTES, self._size_bytes - begin))
            self._blocks[number] = block
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return block

    def _fetch(self, offset: int, length: int) -> bytes:
        if not self._requests_left:
            raise UnsafeImageError(
                "scattered_tables",
                "The image's tables are scattered over too many places; rewrite it with `qemu-img convert`.",
            )
        self._requests_left -= 1
        return self._bucket.read(self._key, offset, length)
