"""The port behind which blobs are kept, the same for a directory and for an object store.

A backend keeps bytes under their digest and knows neither names nor who needs them.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from image_store.admission import ByteSource
from image_store.digest import Digest

T = TypeVar("T")


class BlobUpload(Protocol):
    """Bytes on their way in; leaving the upload's context without `publish` leaves nothing.

    The order of calls is `write`*, `seal`, `examine`*, `settle`, `publish`. All may raise StoreFullError
    and StoreUnavailableError.
    """

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        ...

    async def seal(self) -> Digest:
        """Take no more bytes and return the digest of those that came."""
        ...

    async def examine(self, work: Callable[[ByteSource], T]) -> T:
        """Run `work` in a thread over the sealed bytes and return its result."""
        ...

    async def settle(self) -> None:
        """Make the sealed bytes durable."""
        ...

    async def publish(self) -> None:
        """Make the settled bytes a blob, durably; if there is one of this digest already, keep that one.

        The caller keeps deletes of the same digest away meanwhile.
        """
        ...


class BlobReader(Protocol):
    """An open blob; it stays readable when the blob is deleted meanwhile, as far as the backend can."""

    @property
    def size_bytes(self) -> int:
        """Size of the whole blob."""
        ...

    async def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes at `offset`, fewer than `length` only at the end.

        Raises:
            StoreUnavailableError: The backend fails.
        """
        ...


class BlobStore(Protocol):
    """Content-addressed bytes. All calls may raise StoreUnavailableError."""

    def upload(self, expected_bytes: int | None) -> AbstractAsyncContextManager[BlobUpload]:
        """Begin an upload of `expected_bytes` (None: unknown).

        Raises:
            StoreFullError: There is certainly no room for so many.
        """
        ...

    def open(self, digest: Digest) -> AbstractAsyncContextManager[BlobReader]:
        """Open a blob.

        Raises:
            ImageNotFoundError: There is none of this digest.
        """
        ...

    async def delete(self, digest: Digest) -> None:
        """Remove a blob; one that is not there is fine."""
        ...

    async def digests(self) -> frozenset[Digest]:
        """Return what is stored."""
        ...

    async def remove_leftovers(self) -> int:
        """Remove what neither a blob nor an upload of this process needs and return how much that was.

        Such things are left by an earlier process, or by a backend that was away when they were to go.
        """
        ...

    async def check(self) -> None:
        """Make sure that the backend can be used now, within seconds.

        Raises:
            StoreUnavailableError: It cannot; the message says why, and what to do where somebody must.
        """
        ...
