"""What every test of the image store runs under."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from image_store.blobs.s3.address import S3Address
from image_store.intake import UploadLimits
from image_store_buckets import address_of, server
from image_store_databases import KINDS, new_database
from image_store_world import MIB, Clock, World, running
from qcstack.minio import MinioServer
from sqlalchemy import URL


@pytest.fixture(autouse=True)
def _loop_is_never_blocked() -> Iterator[None]:
    """Fail a test in which the store's own code waits for a disk, a lock or a socket on the loop."""
    with blockbuster_ctx("image_store"):
        yield


@pytest.fixture
def limits() -> UploadLimits:
    return UploadLimits(max_upload_bytes=8 * MIB, max_virtual_bytes=64 * MIB)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | URL]:
    """What the store keeps its catalogue in: every claim about it holds on each."""
    with new_database(request.param, tmp_path) as target:
        yield target


@pytest.fixture
async def world(
    tmp_path: Path, clock: Clock, limits: UploadLimits, target: Path | URL
) -> AsyncIterator[World]:
    """A store with the directory backend."""
    async with running(tmp_path, clock, limits, target=target) as world:
        yield world


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A real MinIO, for tests that leave it as it is."""
    with server(tmp_path_factory.mktemp("minio")) as running_server:
        yield running_server


@pytest.fixture
def own_minio(tmp_path: Path) -> Iterator[MinioServer]:
    """A real MinIO that a test may kill, freeze and fill."""
    with server(tmp_path / "minio") as running_server:
        yield running_server


@pytest.fixture
def address(minio: MinioServer) -> S3Address:
    """A bucket that is not there yet."""
    return address_of(minio, f"images-{secrets.token_hex(4)}")
