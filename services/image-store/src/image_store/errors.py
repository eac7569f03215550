"""What the image store refuses or cannot do.

    ImageStoreError
    ├── InvalidRequestError        the input has faults, all of them listed
    ├── ImageNotFoundError         no image of that name, or no blob of that digest
    ├── ImageInUseError            pins hold the image that was to be deleted
    ├── PreconditionFailedError    If-Match or If-None-Match does not hold
    ├── KeyReusedError             the idempotency key came with another request
    ├── DigestMismatchError        not the bytes that the caller named
    ├── AdmissionError             the bytes must not become an image
    │   ├── UnsafeImageError       a disk image that breaks a rule
    │   └── UnknownFormatError     no disk image that this store takes
    ├── CompressedError            compressed bytes that are not unpacked
    │   ├── CompressionDamagedError    they are damaged or cut off
    │   └── UnpackedTooLargeError  they become larger than the store lets them
    ├── SourceError                a URL that no image was fetched from
    │   ├── SourceForbiddenError   its address may not be connected to
    │   ├── SourceRefusedError     its server has no such file, or is not who it should be
    │   └── SourceBrokenError      its server cannot be used at the moment
    ├── UploadTooLargeError        more bytes than the store takes
    ├── UploadTruncatedError       the upload ended before it was whole
    ├── UploadStalledError         the sender stopped sending and did not hang up
    ├── PageTokenError             no page token, or that of another list
    ├── RangeError                 bytes beyond the end were asked for
    ├── CursorInvalidError         not a cursor of ours
    ├── CursorExpiredError         the events after the cursor are gone
    ├── StoreFullError             no space for blobs or for the catalogue
    └── StoreUnavailableError      blobs or catalogue cannot be used at the moment

They carry data and know nothing of gRPC: problems.py says how each is answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the input: a JSON pointer (RFC 6901) and what is wrong there."""

    pointer: str
    detail: str


class ImageStoreError(Exception):
    """Root of everything the image store raises itself."""


class InvalidRequestError(ImageStoreError):
    """The request cannot be meant."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.pointer}: {fault.detail}" for fault in self.faults))

    @classmethod
    def at(cls, pointer: str, detail: str) -> "InvalidRequestError":
        """Return the error of a single fault."""
        return cls([Fault(pointer, detail)])


class ImageNotFoundError(ImageStoreError):
    """Nothing is stored under this name or digest."""

    def __init__(self, image: str) -> None:
        self.image = image
        super().__init__(f"There is no image {image!r}.")


class ImageInUseError(ImageStoreError):
    """Instances hold the image."""

    def __init__(self, name: str, users: Sequence[str]) -> None:
        self.name = name
        self.users = tuple(users)
        super().__init__(f"Image {name!r} is used by {', '.join(users)}; delete these instances first.")


class PreconditionFailedError(ImageStoreError):
    """The image is not in the version that the caller expects."""

    def __init__(self, name: str, etag: str | None) -> None:
        self.name = name
        self.etag = etag
        now = "does not exist" if etag is None else f"is at {etag!r}"
        super().__init__(f"Image {name!r} {now}, which the precondition rules out.")


class KeyReusedError(ImageStoreError):
    """An idempotency key stands for one request."""

    def __init__(self) -> None:
        super().__init__("The idempotency key was used for another request; take a new one.")


class DigestMismatchError(ImageStoreError):
    """The bytes or the name do not lead to the expected digest."""

    def __init__(self, expected: str, actual: str) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(f"Expected {expected}, found {actual}.")


class AdmissionError(ImageStoreError):
    """The bytes must not become an image."""


class UnsafeImageError(AdmissionError):
    """A disk image that would reach out of itself, or that no honest tool writes.

    Attributes:
        rule: Stable name of the rule that it breaks, in lower_snake_case.
    """

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(detail)


class UnknownFormatError(AdmissionError):
    """Neither qcow2 nor a raw disk; `looks_like` says what it seems to be."""

    def __init__(self, looks_like: str) -> None:
        self.looks_like = looks_like
        super().__init__(f"The bytes are no disk image in qcow2 or raw format: they look like {looks_like}.")


class CompressedError(ImageStoreError):
    """Compressed bytes that are not unpacked."""


class CompressionDamagedError(CompressedError):
    """The data is not what its first bytes promise."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        super().__init__(f"The {kind} data cannot be unpacked: {detail}.")


class UnpackedTooLargeError(CompressedError):
    """The data unpacks to more than the limit, or (`max_ratio`) to too many times its own size."""

    def __init__(self, limit_bytes: int, max_ratio: int | None) -> None:
        self.limit_bytes = limit_bytes
        self.max_ratio = max_ratio
        what = f"{limit_bytes} bytes" if max_ratio is None else f"{max_ratio} times its own size"
        super().__init__(f"The compressed data unpacks to more than {what}; upload it unpacked.")


class SourceError(ImageStoreError):
    """An image cannot be had from a URL; messages show no more of it than may be shown."""


class SourceForbiddenError(SourceError):
    """The policy does not let the store connect there."""

    def __init__(self, host: str, address: str, detail: str = "") -> None:
        self.host = host
        self.address = address
        at = f" ({address})" if address and address != host else ""
        super().__init__(
            f"Nothing is fetched from {host}{at}: "
            + (detail or "it is no public address, and the setting fetch.allow does not name it")
            + "."
        )


class SourceRefusedError(SourceError):
    """Asking again would bring the same answer; `status` is HTTP's, None if that is not the reason."""

    def __init__(self, source: str, detail: str, status: int | None = None) -> None:
        self.source = source
        self.status = status
        super().__init__(f"The image cannot be had from {source}: {detail}.")


class SourceBrokenError(SourceError):
    """It may work later."""

    def __init__(self, source: str, detail: str) -> None:
        self.source = source
        super().__init__(f"The image cannot be had from {source} now: {detail}.")


class UploadTooLargeError(ImageStoreError):
    """The upload is larger than the store takes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"An upload may have at most {limit_bytes} bytes.")


class UploadTruncatedError(ImageStoreError):
    """Bytes are missing, or nothing shows that none are."""

    def __init__(self, received_bytes: int, announced_bytes: int | None) -> None:
        self.received_bytes = received_bytes
        self.announced_bytes = announced_bytes
        of = "" if announced_bytes is None else f" of {announced_bytes}"
        super().__init__(
            f"The upload ended after {received_bytes}{of} bytes without being whole: send it again."
        )


class UploadStalledError(ImageStoreError):
    """No bytes came for a while."""

    def __init__(self, idle_s: float) -> None:
        self.idle_s = idle_s
        super().__init__(f"No bytes came for {idle_s:g} s; nothing was stored, send the upload again.")


class PageTokenError(ImageStoreError):
    """The page token cannot be followed; `fault` says why."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        super().__init__(f"The page token {fault}: list again from the first page.")


class RangeError(ImageStoreError):
    """The range begins behind the end."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        super().__init__(f"The content has {size_bytes} bytes; the range begins behind them.")


class CursorInvalidError(ImageStoreError):
    """A cursor that this store never gave out."""

    def __init__(self, cursor: str) -> None:
        super().__init__(f"{cursor[:64]!r} is not a cursor.")


class CursorExpiredError(ImageStoreError):
    """Events after this cursor are no longer (or not in this database); list and start again."""

    def __init__(self) -> None:
        super().__init__("The events after this cursor are not available any more: list again, then watch.")


class StoreFullError(ImageStoreError):
    """No space is left."""

    def __init__(self) -> None:
        super().__init__("The image store's disk is full: delete images that are not needed.")


class StoreUnavailableError(ImageStoreError):
    """The store cannot be used now; what was asked may work later."""
