"""The settings message, checked and in the store's own terms."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from qcontroller.settings.v1.settings_pb2 import ImageStoreSettings, S3Backend
from servicekit.quantities import MIB, QuantityError, parse_size_mib
from servicekit.settings import SettingsError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from image_store.blobs.s3.address import S3Address
from image_store.fetching.address_policy import AddressPolicy
from image_store.intake import MAX_UNPACK_RATIO, UploadLimits

_MAX_UPLOAD: Final = "64G"
_MAX_VIRTUAL_SIZE: Final = "2T"
_ENDPOINT: Final = re.compile(r"([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?", re.ASCII)
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_ALLOWED_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?", re.ASCII)
_LETTER: Final = re.compile(r"[A-Za-z]", re.ASCII)
_PREFIX: Final = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the store listens and keeps things, and what it takes."""

    public: tuple[str, ...]
    controller: tuple[str, ...]
    runner: tuple[str, ...]
    database: Path | URL
    backend: Path | S3Address
    limits: UploadLimits
    fetch_policy: AddressPolicy = field(default_factory=AddressPolicy)
    fetch_ca_file: Path | None = None


def parse_settings(message: ImageStoreSettings) -> Settings:
    """Return what `message` means.

    Raises:
        SettingsError: A value is missing or cannot be used.
    """
    return Settings(
        public=tuple(message.listen),
        controller=tuple(message.controller_listen),
        runner=tuple(message.runner_listen),
        database=_database(message.database_url),
        backend=_backend(message),
        limits=UploadLimits(
            max_upload_bytes=_bytes("maxUpload", message.max_upload or _MAX_UPLOAD),
            max_virtual_bytes=_bytes("maxVirtualSize", message.max_virtual_size or _MAX_VIRTUAL_SIZE),
            max_unpacked_bytes=_bytes("maxUnpacked", message.max_unpacked) if message.max_unpacked else None,
            max_unpack_ratio=message.max_unpack_ratio or MAX_UNPACK_RATIO,
        ),
        fetch_policy=_policy(message.fetch.allow),
        fetch_ca_file=Path(message.fetch.ca_file) if message.fetch.ca_file else None,
    )


def _policy(allow: Sequence[str]) -> AddressPolicy:
    for text in allow:
        try:
            ip_network(text)
        except ValueError as exc:
            # A network with a bit too much, or a prefix too long, must not be taken for a name.
            if not _ALLOWED_HOST.fullmatch(text) or not _LETTER.search(text.rpartition(".")[2]):
                raise SettingsError(
                    f"fetch.allow: {text!r} is neither a network (10.20.0.0/16) nor a host's name"
                ) from exc
    return AddressPolicy.of(allow)


def _backend(message: ImageStoreSettings) -> Path | S3Address:
    if message.directory.path and message.HasField("s3"):
        raise SettingsError("directory and s3 are both given: blobs are kept in one of them")
    if message.HasField("s3"):
        return _s3(message.s3)
    if not message.directory.path:
        raise SettingsError("directory.path is missing (or s3): say where blobs are kept")
    return Path(message.directory.path)


def _s3(message: S3Backend) -> S3Address:
    if not _ENDPOINT.fullmatch(message.endpoint):
        raise SettingsError(f"s3.endpoint: {message.endpoint!r} is no host:port; TLS is the setting secure")
    if not _BUCKET.fullmatch(message.bucket) or ".." in message.bucket:
        raise SettingsError(f"s3.bucket: {message.bucket!r} is no name of a bucket")
    prefix = f"{message.prefix}/" if message.prefix and not message.prefix.endswith("/") else message.prefix
    if not _PREFIX.fullmatch(prefix):
        raise SettingsError(
            f"s3.prefix: {message.prefix!r} must be words of letters, digits and ._- with / between"
        )
    for name, path in (
        ("accessKeyFile", message.access_key_file),
        ("secretKeyFile", message.secret_key_file),
    ):
        if not path:
            raise SettingsError(f"s3.{name} is missing: the file that holds the key")
    return S3Address(
        endpoint=message.endpoint,
        bucket=message.bucket,
        region=message.region or "us-east-1",
        secure=message.secure,
        ca_file=Path(message.ca_file) if message.ca_file else None,
        access_key_file=Path(message.access_key_file),
        secret_key_file=Path(message.secret_key_file),
        prefix=prefix,
    )


def _bytes(name: str, text: str) -> int:
    try:
        return parse_size_mib(text) * MIB
    except QuantityError as exc:
        raise SettingsError(f"{name}: {exc}") from exc


def _database(text: str) -> Path | URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as exc:
        # It may hold a password: it is not repeated.
        raise SettingsError("databaseUrl is no URL") from exc
    if url.drivername in {"postgresql", "postgres"}:
        if not url.database:
            raise SettingsError(
                "databaseUrl: name a database, as in postgresql://user@host/qcontroller_images"
            )
        return url
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise SettingsError("databaseUrl: give sqlite:////path/to/image-store.db or postgresql://…")
    return Path(url.database)
