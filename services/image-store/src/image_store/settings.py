"""The settings message, checked and in the store's own terms."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qcontroller.settings.v1.settings_pb2 import ImageStoreSettings
from servicekit.quantities import MIB, QuantityError, parse_size_mib
from servicekit.settings import SettingsError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from image_store.uploads import UploadLimits

_MAX_UPLOAD: Final = "64G"
_MAX_VIRTUAL_SIZE: Final = "2T"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the store listens and keeps things, and what it takes."""

    public: tuple[str, ...]
    controller: tuple[str, ...]
    runner: tuple[str, ...]
    database: Path
    directory: Path
    limits: UploadLimits


def parse_settings(message: ImageStoreSettings) -> Settings:
    """Return what `message` means.

    Raises:
        SettingsError: A value is missing or cannot be used.
    """
    if not message.directory.path:
        raise SettingsError("directory.path is missing: say where blobs are kept")
    return Settings(
        public=tuple(message.listen),
        controller=tuple(message.controller_listen),
        runner=tuple(message.runner_listen),
        database=_sqlite_path(message.database_url),
        directory=Path(message.directory.path),
        limits=UploadLimits(
            max_upload_bytes=_bytes("maxUpload", message.max_upload or _MAX_UPLOAD),
            max_virtual_bytes=_bytes("maxVirtualSize", message.max_virtual_size or _MAX_VIRTUAL_SIZE),
        ),
    )


def _bytes(name: str, text: str) -> int:
    try:
        return parse_size_mib(text) * MIB
    except QuantityError as exc:
        raise SettingsError(f"{name}: {exc}") from exc


def _sqlite_path(text: str) -> Path:
    try:
        url = make_url(text)
    except ArgumentError as exc:
        raise SettingsError(f"databaseUrl: {text!r} is no URL") from exc
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise SettingsError("databaseUrl: give sqlite:////path/to/image-store.db")
    return Path(url.database)
