"""The objects that make a blob, and the steps between them. Blocks like the bucket below it.

    data/<id>                  the bytes of an upload, under an id of their own
    uploads/<id>               stands while data/<id> may have parts that are no object yet
    blobs/sha256/<hex>/<id>    empty; says that data/<id> is the blob of this digest
    owner                      says whose all this is

Each step can be repeated, and a crash between two leaves only what `remove_others` finds.
"""

import uuid
from collections.abc import Iterator
from typing import Final, NewType

from image_store.blobs.s3.bucket import Bucket
from image_store.digest import ALGORITHM, Digest, hex_of, parse_digest
from image_store.errors import StoreUnavailableError

DataId = NewType("DataId", str)

_DATA: Final = "data/"
_MARKERS: Final = "uploads/"
_NAMES: Final = f"blobs/{ALGORITHM}/"
_OWNER: Final = "owner"


def new_id() -> DataId:
    """Return an id that no other object has."""
    return DataId(uuid.uuid4().hex)


def data_key(data: DataId) -> str:
    """Return the key of the bytes."""
    return _DATA + data


class Objects:
    """Blobs in a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    def claim(self, owner: str) -> None:
        """Write down whose the objects are, where it does not stand yet.

        A store removes what its catalogue does not need: two stores in one place would undo each other.

        Raises:
            StoreUnavailableError: They are another's.
        """
        size_bytes = self.bucket.size_of(_OWNER)
        if size_bytes is None:
            self.bucket.put(_OWNER, owner.encode("ascii"))
        elif self.bucket.read(_OWNER, 0, size_bytes).decode("ascii", "replace") != owner:
            raise StoreUnavailableError(
                f"The object store cannot be used: {self.bucket.place} belongs to another image store, or to "
                "a database that is lost. Set another bucket or prefix; to give its images up, remove its "
                f"object {_OWNER!r}."
            )

    def announce(self, data: DataId) -> str:
        """Begin to write `data` in parts that are found whatever happens; return the id of that."""
        self.bucket.put(_MARKERS + data, b"")
        return self.bucket.begin(data_key(data))

    def publish(self, digest: Digest, data: DataId) -> bool:
        """Make `data` the blob of `digest`; tell whether it is that now, or another one was already."""
        for other in self._named(digest):
            if self.bucket.size_of(data_key(other)) is not None:
                return other == data
            # Its bytes are gone: a write that arrived after its upload had been given up.
            self.bucket.remove(_name(digest, other))
        self.bucket.put(_name(digest, data), b"")
        return True

    def is_named(self, digest: Digest, data: DataId) -> bool:
        """Tell whether `data` is a blob of `digest`."""
        return data in self._named(digest)

    def find(self, digest: Digest) -> tuple[DataId, int] | None:
        """Return where the blob's bytes are, and how many; None if there is no such blob."""
        for data in self._named(digest):
            size_bytes = self.bucket.size_of(data_key(data))
            if size_bytes is not None:
                return data, size_bytes
        return None

    def unname(self, digest: Digest) -> list[DataId]:
        """Let the blob be none any more; return whose bytes can go."""
        found = self._named(digest)
        for data in found:
            self.bucket.remove(_name(digest, data))
        return found

    def tidy(self, data: DataId, *, named: bool, in_parts: bool) -> None:
        """Remove what the end of an upload leaves: pending parts, and the bytes unless they are a blob's."""
        if in_parts:
            self.bucket.abort_pending(data_key(data))
        if not named:
            self.bucket.remove(data_key(data))
        if in_parts:
            self.bucket.remove(_MARKERS + data)

    def data(self) -> set[DataId]:
        """Return the ids of all bytes that are objects."""
        return set(self._ids(_DATA))

    def announced(self) -> set[DataId]:
        """Return the ids whose bytes may have pending parts."""
        return set(self._ids(_MARKERS))

    def names(self) -> Iterator[tuple[Digest, DataId]]:
        """Yield all blobs."""
        for key in self.bucket.keys(_NAMES):
            digits, _, data = key.removeprefix(_NAMES).partition("/")
            digest = parse_digest(f"{ALGORITHM}:{digits}")
            if digest is not None and data:
                yield digest, DataId(data)

    def remove_others(self, written: set[DataId], announced: set[DataId], needed: set[DataId]) -> int:
        """Remove what `data` and `announced` returned before, unless it is `needed` or a blob's by now.

        Return how much that was.
        """
        names = list(self.names())
        named = {data for _, data in names}
        leftovers = ((written - named) | announced) - needed
        for data in leftovers:
            self.tidy(data, named=data in named, in_parts=data in announced)
        for digest, data in names:
            if data not in written and data not in needed and self.bucket.size_of(data_key(data)) is None:
                self.bucket.remove(_name(digest, data))
        return len(leftovers)

    def _named(self, digest: Digest) -> list[DataId]:
        beginning = f"{_NAMES}{hex_of(digest)}/"
        return [DataId(key.removeprefix(beginning)) for key in self.bucket.keys(beginning)]

    def _ids(self, beginning: str) -> Iterator[DataId]:
        return (DataId(key.removeprefix(beginning)) for key in self.bucket.keys(beginning))


def _name(digest: Digest, data: DataId) -> str:
    return f"{_NAMES}{hex_of(digest)}/{data}"
