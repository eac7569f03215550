"""The S3 backend without a server: how its errors are told, how it reads, which settings it takes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import urllib3.exceptions
from image_store.app import application
from image_store.blobs.s3.errors import ADVICE, s3_errors
from image_store.blobs.s3.reading import BlockSource
from image_store.blobs.s3.upload import part_bytes_for
from image_store.errors import StoreFullError, StoreUnavailableError, UnsafeImageError
from image_store.settings import parse_settings
from image_store_world import MIB
from minio.error import InvalidResponseError, S3Error, ServerError
from prometheus_client import CollectorRegistry
from qcontroller.settings.v1.settings_pb2 import DirectoryBackend, ImageStoreSettings, S3Backend
from servicekit.settings import SettingsError, load_settings


def s3_error(code: str, message: str = "said the server") -> S3Error:
    response: Any = None
    return S3Error(response, code, message, None, None, None)


@pytest.mark.parametrize("code", ["XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"])
def test_a_service_without_room_is_full(code: str) -> None:
    with pytest.raises(StoreFullError), s3_errors():
        raise s3_error(code)


def test_a_disk_that_is_full_below_the_service_is_full() -> None:
    with pytest.raises(StoreFullError), s3_errors():
        raise s3_error("InternalError", "We encountered an internal error: cause(no space left on device).")


@pytest.mark.parametrize("code", ADVICE)
def test_a_code_with_advice_is_told_with_it(code: str) -> None:
    with pytest.raises(StoreUnavailableError) as caught, s3_errors():
        raise s3_error(code)
    assert ADVICE[code] in str(caught.value)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (s3_error("Novel"), "Novel: said the server"),
        (ServerError("bad", 502), "HTTP status 502"),
        (InvalidResponseError(200, "text/html", "<html>"), "not answer as an S3 service"),
        (urllib3.exceptions.NewConnectionError(None, "refused"), "cannot be reached"),  # type: ignore[arg-type]
        (urllib3.exceptions.ReadTimeoutError(None, "/", "slow"), "in time"),  # type: ignore[arg-type]
        (
            urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.SSLError("self-signed")),  # type: ignore[arg-type]
            "caFile",
        ),
    ],
)
def test_every_failure_of_the_client_makes_the_store_unavailable(error: Exception, told: str) -> None:
    with pytest.raises(StoreUnavailableError, match=told), s3_errors():
        raise error


class Content:
    """Stands for the bucket that a source reads from, and counts."""

    def __init__(self, size: int) -> None:
        self.content = bytes(range(256)) * (size // 256)
        self.requests = 0

    def read(self, key: str, offset: int, length: int) -> bytes:
        del key
        self.requests += 1
        return self.content[offset : offset + length]


def source_of(content: Content, max_requests: int = 100) -> BlockSource:
    bucket: Any = content
    return BlockSource(bucket, "key", len(content.content), max_requests)


def test_neighbouring_tables_are_read_with_one_request() -> None:
    content = Content(4 * MIB)
    source = source_of(content)
    for offset in range(0, MIB, 4096):
        assert source.read_at(offset, 4096) == content.content[offset : offset + 4096]
    assert content.requests == 1


def test_an_image_that_asks_for_endless_reading_is_refused() -> None:
    source = source_of(Content(64 * MIB), max_requests=10)
    for place in range(10):
        source.read_at(place * 2 * MIB, 512)
    with pytest.raises(UnsafeImageError) as caught:
        source.read_at(0, 512)
    assert caught.value.rule == "scattered_tables"


@pytest.mark.parametrize("largest", [MIB, 64 * 1024 * MIB, 5 * 1024 * 1024 * MIB])
def test_the_largest_upload_fits_into_the_parts_that_the_service_takes(largest: int) -> None:
    assert part_bytes_for(largest) * 10_000 >= largest
    assert part_bytes_for(largest) >= 5 * MIB


S3: dict[str, Any] = {
    "endpoint": "minio:9000",
    "bucket": "images",
    "access_key_file": "/run/keys/access",
    "secret_key_file": "/run/keys/secret",
}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"endpoint": ""}, "s3.endpoint"),
        ({"endpoint": "http://minio:9000"}, "s3.endpoint"),
        ({"bucket": "No_Bucket"}, "s3.bucket"),
        ({"bucket": ""}, "s3.bucket"),
        ({"prefix": "/images"}, "s3.prefix"),
        ({"prefix": "a/../b"}, "s3.prefix"),
        ({"access_key_file": ""}, "s3.accessKeyFile"),
        ({"secret_key_file": ""}, "s3.secretKeyFile"),
    ],
)
async def test_settings_that_cannot_be_used_are_named(
    tmp_path: Path, change: dict[str, str], fault: str
) -> None:
    settings = ImageStoreSettings(
        database_url=f"sqlite:///{tmp_path}/image-store.db", s3=S3Backend(**(S3 | change))
    )
    with pytest.raises(SettingsError, match=fault):
        async with application(settings, CollectorRegistry()):
            pass


def test_a_process_with_settings_that_cannot_be_meant_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        '{"databaseUrl": "sqlite:////x.db", "s3": {"endpoint": "http://minio"}}', encoding="utf-8"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "image_store", "--config", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "image-store: s3.endpoint" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_directory_and_a_bucket_at_once_are_refused() -> None:
    settings = ImageStoreSettings(
        database_url="sqlite:////x.db", s3=S3Backend(**S3), directory=DirectoryBackend(path="/x")
    )
    with pytest.raises(SettingsError, match="both"):
        parse_settings(settings)


def test_a_bucket_can_be_given_by_variables_alone() -> None:
    environ = {f"QC_IMAGE_STORE_S3__{name.upper()}": value for name, value in S3.items()}
    environ |= {"QC_IMAGE_STORE_DATABASE_URL": "sqlite:////x.db", "QC_IMAGE_STORE_S3__PREFIX": "a/b"}
    message = load_settings(ImageStoreSettings(), None, env_prefix="QC_IMAGE_STORE_", environ=environ)
    address = parse_settings(message).backend
    assert not isinstance(address, Path)
    assert (address.endpoint, address.prefix, address.region) == ("minio:9000", "a/b/", "us-east-1")
