"""Images, blobs and pins as values, and the preconditions on an image's version."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from image_store.digest import Digest
from image_store.errors import PreconditionFailedError

ImageName = NewType("ImageName", str)
InstanceId = NewType("InstanceId", str)


class ImageState(enum.StrEnum):
    """Lifecycle of an image. An upload that is not complete is no image.

    A delete is one transaction, so nobody sees DELETING today; the word is reserved for backends whose
    deletes take time.
    """

    READY = "READY"
    DELETING = "DELETING"


class DiskFormat(enum.StrEnum):
    """How a blob's bytes make a disk."""

    QCOW2 = "qcow2"
    RAW = "raw"


class Arch(enum.StrEnum):
    """Architecture of the guest in an image."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes that a machine can run from."""

    stored_digest: Digest
    format: DiskFormat
    size_bytes: int
    virtual_size_bytes: int


@dataclass(frozen=True, slots=True)
class Image:
    """A name that points to a blob.

    Attributes:
        digest: Of the bytes as they were uploaded.
        generation: Raised, never re-used, with every change but those of `used_by`.
        revision: Raised, never re-used, with every change.
        used_by: Names of the instances that were pinned through this name to this very content, sorted. An
            instance pinned before the name got other bytes uses the old blob, not this image.
    """

    name: ImageName
    digest: Digest
    blob: Blob
    state: ImageState
    arch: Arch
    labels: Mapping[str, str]
    create_time: datetime
    used_by: tuple[str, ...]
    generation: int
    revision: int

    @property
    def etag(self) -> str:
        """Version of the representation, without quotes."""
        return f"{self.generation}-{self.revision}"


@dataclass(frozen=True, slots=True)
class Pin:
    """An instance's claim on a blob: while it stands, the blob stays."""

    instance_id: InstanceId
    instance_name: str
    image_name: ImageName
    digest: Digest
    stored_digest: Digest
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Preconditions:
    """If-Match and If-None-Match (RFC 9110 section 13.1): an etag without quotes, "*" or empty.

    Etags are compared by their generation: instances come and go without the client's doing, and their
    names in `used_by` are no reason to refuse it.
    """

    if_match: str = ""
    if_none_match: str = ""

    def check(self, name: ImageName, image: Image | None) -> None:
        """Compare with the image as it is now.

        Raises:
            PreconditionFailedError: One of them does not hold.
        """
        matched = not self.if_match or self._names(self.if_match, image)
        excluded = bool(self.if_none_match) and self._names(self.if_none_match, image)
        if not matched or excluded:
            raise PreconditionFailedError(name, None if image is None else image.etag)

    @staticmethod
    def _names(condition: str, image: Image | None) -> bool:
        if image is None:
            return False
        return condition == "*" or condition.strip('"').partition("-")[0] == str(image.generation)
