"""The one table of how the store's errors are answered; what it does not know becomes INTERNAL."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from grpc import StatusCode
from servicekit.rpc_errors import RpcProblem, Violation

from image_store.errors import (
    CompressionDamagedError,
    CursorExpiredError,
    CursorInvalidError,
    DigestMismatchError,
    ImageInUseError,
    ImageNotFoundError,
    ImageStoreError,
    InvalidRequestError,
    KeyReusedError,
    PageTokenError,
    PreconditionFailedError,
    RangeError,
    SourceBrokenError,
    SourceForbiddenError,
    SourceRefusedError,
    StoreFullError,
    StoreUnavailableError,
    UnknownFormatError,
    UnpackedTooLargeError,
    UnsafeImageError,
    UploadStalledError,
    UploadTooLargeError,
    UploadTruncatedError,
)

# Exception, gRPC code, reason, and the metadata that its data make.
_Row = tuple[StatusCode, str, Callable[[Any], dict[str, str]]]


def _nothing(_error: ImageStoreError) -> dict[str, str]:
    return {}


TABLE: Final[Mapping[type[ImageStoreError], _Row]] = MappingProxyType(
    {
        InvalidRequestError: (StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", _nothing),
        ImageNotFoundError: (StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND", lambda e: {"image": e.image}),
        ImageInUseError: (
            StatusCode.FAILED_PRECONDITION,
            "IMAGE_IN_USE",
            lambda e: {"image": e.name, "users": ",".join(e.users)},
        ),
        PreconditionFailedError: (
            StatusCode.FAILED_PRECONDITION,
            "PRECONDITION_FAILED",
            lambda e: {"image": e.name, **({} if e.etag is None else {"etag": e.etag})},
        ),
        KeyReusedError: (StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED", _nothing),
        DigestMismatchError: (
            StatusCode.INVALID_ARGUMENT,
            "IMAGE_DIGEST_MISMATCH",
            lambda e: {"expected": e.expected, "actual": e.actual},
        ),
        UnsafeImageError: (StatusCode.INVALID_ARGUMENT, "IMAGE_UNSAFE", lambda e: {"rule": e.rule}),
        UnknownFormatError: (
            StatusCode.INVALID_ARGUMENT,
            "IMAGE_FORMAT_UNKNOWN",
            lambda e: {"looksLike": e.looks_like},
        ),
        CompressionDamagedError: (
            StatusCode.INVALID_ARGUMENT,
            "IMAGE_DAMAGED",
            lambda e: {"compression": e.kind},
        ),
        UnpackedTooLargeError: (
            StatusCode.INVALID_ARGUMENT,
            "IMAGE_UNPACKS_TOO_LARGE",
            lambda e: {
                "limitBytes": str(e.limit_bytes),
                **({} if e.max_ratio is None else {"limitRatio": str(e.max_ratio)}),
            },
        ),
        SourceForbiddenError: (
            StatusCode.INVALID_ARGUMENT,
            "IMAGE_SOURCE_FORBIDDEN",
            lambda e: {"host": e.host, **({"address": e.address} if e.address else {})},
        ),
        SourceRefusedError: (
            StatusCode.FAILED_PRECONDITION,
            "IMAGE_SOURCE_REFUSED",
            lambda e: {"source": e.source, **({} if e.status is None else {"status": str(e.status)})},
        ),
        SourceBrokenError: (
            StatusCode.UNAVAILABLE,
            "IMAGE_SOURCE_UNAVAILABLE",
            lambda e: {"source": e.source},
        ),
        UploadTooLargeError: (
            StatusCode.INVALID_ARGUMENT,
            "BODY_TOO_LARGE",
            lambda e: {"limitBytes": str(e.limit_bytes)},
        ),
        UploadTruncatedError: (
            StatusCode.INVALID_ARGUMENT,
            "UPLOAD_TRUNCATED",
            lambda e: {"receivedBytes": str(e.received_bytes)},
        ),
        UploadStalledError: (StatusCode.DEADLINE_EXCEEDED, "UPLOAD_STALLED", _nothing),
        PageTokenError: (StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", _nothing),
        RangeError: (
            StatusCode.OUT_OF_RANGE,
            "RANGE_NOT_SATISFIABLE",
            lambda e: {"totalBytes": str(e.size_bytes)},
        ),
        CursorInvalidError: (StatusCode.INVALID_ARGUMENT, "CURSOR_INVALID", _nothing),
        CursorExpiredError: (StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED", _nothing),
        StoreFullError: (StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL", _nothing),
        StoreUnavailableError: (StatusCode.UNAVAILABLE, "IMAGE_STORE_UNAVAILABLE", _nothing),
    }
)


def translate(error: Exception) -> RpcProblem | None:
    """Return what the caller is told of `error`, or None for what is no error of ours."""
    if not isinstance(error, ImageStoreError) or type(error) not in TABLE:
        return None
    code, reason, metadata_of = TABLE[type(error)]
    violations: tuple[Violation, ...] = ()
    if isinstance(error, InvalidRequestError):
        violations = tuple(Violation(fault.pointer, fault.detail) for fault in error.faults)
    return RpcProblem(code, reason, str(error), metadata_of(error), violations)
