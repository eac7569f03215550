"""The one place where errors of the S3 client are translated, into what failed and what to do about it."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from image_store.errors import StoreFullError, StoreUnavailableError

_FULL: Final = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"})
NO_BUCKET: Final = "NoSuchBucket"
NO_OBJECT: Final = "NoSuchKey"
# Codes of the S3 API, and what each asks of whoever runs this.
ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "InvalidAccessKeyId": "it does not know the access key: check the file of accessKeyFile",
        "SignatureDoesNotMatch": "it refuses the secret key: check the file of secretKeyFile",
        "AccessDenied": "these credentials may not do that: let them list, read, write and delete here",
        "RequestTimeTooSkewed": "its clock and this host's are too far apart: set both, by NTP for example",
        "AuthorizationHeaderMalformed": "the bucket is in another region: set region",
        NO_BUCKET: "the bucket is not there",
        "XMinioServerNotInitialized": "it is still starting",
        "SlowDown": "it is overloaded",
    }
)


@contextmanager
def s3_errors() -> Iterator[None]:
    """Translate what the client raises.

    Raises:
        StoreFullError: The service has no room, or a quota is used up.
        StoreUnavailableError: Anything else.
    """
    try:
        yield
    except S3Error as exc:
        # MinIO has a code for it, and yet passes on its disk's own word now and then.
        if exc.code in _FULL or os.strerror(errno.ENOSPC).lower() in (exc.message or "").lower():
            raise StoreFullError from exc
        raise _unavailable(ADVICE.get(exc.code or "", f"{exc.code}: {exc.message}")) from exc
    except ServerError as exc:
        raise _unavailable(f"it answers with HTTP status {exc.status_code}") from exc
    except (InvalidResponseError, MinioException, ParseError) as exc:
        raise _unavailable("it does not answer as an S3 service does: check endpoint and secure") from exc
    except HTTPError as exc:
        raise _unavailable(_transport_fault(exc)) from exc


def _transport_fault(error: HTTPError) -> str:
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(cause, SSLError):
        return "no TLS connection can be made: check secure and caFile"
    # urllib3 still counts the former among the latter.
    if isinstance(cause, HTTPTimeoutError) and not isinstance(cause, NewConnectionError):
        return "it does not answer in time"
    return "it cannot be reached"


def _unavailable(fault: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"The object store cannot be used: {fault}.")
