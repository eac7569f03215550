"""What every test of the image store runs under."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from image_store.uploads import UploadLimits
from image_store_world import MIB, Clock, World, running


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


@pytest.fixture
async def world(tmp_path: Path, clock: Clock, limits: UploadLimits) -> AsyncIterator[World]:
    """A store with the directory backend."""
    async with running(tmp_path, clock, limits) as world:
        yield world
