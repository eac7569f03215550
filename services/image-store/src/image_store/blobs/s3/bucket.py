"""The bucket's calls, as the store needs them. They block, and raise what the client raises.

Nothing else speaks to the service. Keys are given and returned without the address's prefix.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider
from minio.datatypes import Part
from minio.error import S3Error
from urllib3 import PoolManager, Retry, Timeout

from image_store.blobs.s3.address import S3Address, S3Limits
from image_store.blobs.s3.errors import NO_BUCKET, NO_OBJECT
from image_store.errors import StoreUnavailableError

MIN_PART_BYTES: Final = 5 * 1024 * 1024
MAX_PARTS: Final = 10_000
_CONNECTIONS: Final = 8
_PROBE: Final = S3Limits(connect_s=2.0, read_s=3.0, retries=0)
_PASSING_STATUS: Final = (500, 502, 503, 504)


class Bucket:
    """One bucket of one service."""

    def __init__(self, address: S3Address) -> None:
        """Speak to `address`; nothing is sent yet."""
        self._address = address
        self._client = _Client(address, address.limits)
        self._probe = _Client(address, _PROBE)

    @property
    def place(self) -> str:
        """The bucket and the prefix, in words."""
        prefix = self._address.prefix
        return f"bucket {self._address.bucket!r}" + (f" below {prefix!r}" if prefix else "")

    def check(self) -> None:
        """Look whether the bucket can be used, within seconds; make it if it is missing."""
        try:
            next(self._probe.list_objects(self._address.bucket, self._address.prefix), None)
        except S3Error as exc:
            if exc.code != NO_BUCKET:
                raise
            self._make()

    def put(self, key: str, content: bytes) -> None:
        """Write an object whole."""
        # Told that the whole is one part, the client sends one request.
        self._client.put_object(
            *self._at(key), io.BytesIO(content), len(content), part_size=max(len(content), MIN_PART_BYTES)
        )

    def begin(self, key: str) -> str:
        """Begin to write an object in parts; return the id of that."""
        return self._client.begin(*self._at(key))

    def put_part(self, key: str, pending: str, number: int, content: bytes) -> Part:
        """Write a part, numbered from 1."""
        return self._client.put_part(*self._at(key), pending, number, content)

    def complete(self, key: str, pending: str, parts: Sequence[Part]) -> None:
        """Make an object of the parts.

        Raises:
            StoreUnavailableError: The service began to answer that all is well, and then thought otherwise.
        """
        # The answer can take long, so that its status is sent before the outcome is known.
        if not self._client.complete(*self._at(key), pending, parts):
            raise StoreUnavailableError("The object store could not put the parts of the upload together.")

    def abort_pending(self, key: str) -> None:
        """Drop all parts of `key` that are no object yet.

        Listed by the whole key: MinIO answers that from its disk, and any shorter prefix from a memory that a
        restart empties.
        """
        for pending in self._client.pending(*self._at(key)):
            try:
                self._client.abort(*self._at(key), pending)
            except S3Error as exc:
                if exc.code != "NoSuchUpload":
                    raise

    def size_of(self, key: str) -> int | None:
        """Return the size of an object; None if it is not there."""
        try:
            return self._client.stat_object(*self._at(key)).size or 0
        except S3Error as exc:
            if exc.code != NO_OBJECT:
                raise
            return None

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Return `length` bytes, which must be there."""
        response = self._client.get_object(*self._at(key), offset=offset, length=length)
        try:
            content = response.read()
        finally:
            response.close()
            response.release_conn()
        if len(content) != length:
            raise StoreUnavailableError(f"The object store sent {len(content)} of {length} bytes.")
        return content

    def keys(self, beginning: str) -> list[str]:
        """Return all keys that begin so."""
        address = self._address
        found = self._client.list_objects(address.bucket, address.prefix + beginning, recursive=True)
        return [(item.object_name or "").removeprefix(address.prefix) for item in found]

    def remove(self, key: str) -> None:
        """Remove an object; one that is not there is fine."""
        self._client.remove_object(*self._at(key))

    def _at(self, key: str) -> tuple[str, str]:
        return self._address.bucket, self._address.prefix + key

    def _make(self) -> None:
        bucket = self._address.bucket
        try:
            self._probe.make_bucket(bucket)
        except S3Error as exc:
            if exc.code == "BucketAlreadyOwnedByYou":
                return
            if exc.code == "AccessDenied":
                raise StoreUnavailableError(
                    f"The object store cannot be used: there is no bucket {bucket!r} and these credentials "
                    "may not make it: make it, or set bucket to one that is there."
                ) from exc
            raise


class _Client(Minio):
    """The client, with the calls of a multipart upload that it keeps for those who derive from it."""

    def __init__(self, address: S3Address, limits: S3Limits) -> None:
        super().__init__(
            address.endpoint,
            region=address.region,
            secure=address.secure,
            credentials=_KeyFiles(address.access_key_file, address.secret_key_file),
            http_client=PoolManager(
                maxsize=_CONNECTIONS,
                timeout=Timeout(connect=limits.connect_s, read=limits.read_s),
                retries=Retry(
                    total=limits.retries,
                    read=min(limits.retries, 1),
                    backoff_factor=0.3,
                    status_forcelist=_PASSING_STATUS,
                    # What the service says at last is worth more than that it was asked too often; and it
                    # may ask to wait for minutes.
                    raise_on_status=False,
                    respect_retry_after_header=False,
                ),
                # None: those of the system.
                ca_certs=str(address.ca_file) if address.ca_file else None,
            ),
        )

    def begin(self, bucket: str, key: str) -> str:
        return self._create_multipart_upload(bucket, key, {})

    def put_part(self, bucket: str, key: str, pending: str, number: int, content: bytes) -> Part:
        return Part(number, self._upload_part(bucket, key, content, None, pending, number))

    def complete(self, bucket: str, key: str, pending: str, parts: Sequence[Part]) -> bool:
        return bool(self._complete_multipart_upload(bucket, key, pending, list(parts)).etag)

    def pending(self, bucket: str, key: str) -> list[str]:
        found = self._list_multipart_uploads(bucket, prefix=key).uploads
        return [item.upload_id for item in found if item.object_name == key and item.upload_id]

    def abort(self, bucket: str, key: str, pending: str) -> None:
        self._abort_multipart_upload(bucket, key, pending)


class _KeyFiles(Provider):
    """Reads the keys anew for each request, so that they can be replaced at any time."""

    def __init__(self, access_key: Path, secret_key: Path) -> None:
        self._access_key = access_key
        self._secret_key = secret_key

    def retrieve(self) -> Credentials:
        return Credentials(_key("accessKeyFile", self._access_key), _key("secretKeyFile", self._secret_key))


def _key(setting: str, path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        fault = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise StoreUnavailableError(f"The object store cannot be used: {setting} {path}: {fault}.") from exc
    if not key:
        raise StoreUnavailableError(f"The object store cannot be used: {setting} {path} is empty.")
    return key
