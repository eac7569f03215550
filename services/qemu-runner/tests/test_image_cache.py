"""What the image cache keeps: what is used, what was used last, and nothing beyond its limit else."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from qemu_runner.domain.machine import DiskFormat, Image
from qemu_runner.ports import BlobInfo
from qemu_runner.store.image_cache import ImageCache

BLOCK = 4096


def image(content: bytes) -> Image:
    return Image(f"sha256:{hashlib.sha256(content).hexdigest()}", DiskFormat.RAW, len(content))


A, B, C = (letter * BLOCK for letter in (b"a", b"b", b"c"))


class Source:
    """Has the three images, and counts how often each is read."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    async def read(self, digest: str) -> AsyncIterator[BlobInfo | bytes]:
        self.reads.append(digest)
        for content in (A, B, C):
            if image(content).stored_digest == digest:
                yield BlobInfo(len(content), DiskFormat.RAW)
                yield content


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def cache(tmp_path: Path, source: Source) -> ImageCache:
    made = ImageCache(tmp_path, source, 2 * BLOCK)
    await made.create()
    return made


async def use(cache: ImageCache, content: bytes) -> Path:
    async with cache.held(image(content), lambda _done, _total: None) as path:
        return path


async def test_what_was_not_used_for_longest_is_evicted_first(cache: ImageCache) -> None:
    a, b = await use(cache, A), await use(cache, B)
    await use(cache, A)
    c = await use(cache, C)
    assert [path.exists() for path in (a, b, c)] == [True, False, True]


async def test_an_image_that_a_machine_runs_from_is_not_evicted(cache: ImageCache, tmp_path: Path) -> None:
    a = await use(cache, A)
    (tmp_path / "base").hardlink_to(a)
    b, c = await use(cache, B), await use(cache, C)
    assert [path.exists() for path in (a, b, c)] == [True, False, True]


async def test_an_image_is_not_evicted_while_it_is_being_used(cache: ImageCache) -> None:
    async with cache.held(image(A), lambda _done, _total: None) as a:
        await use(cache, B)
        await use(cache, C)
        assert a.read_bytes() == A


async def test_what_is_kept_is_not_fetched_again_and_what_was_evicted_is(
    cache: ImageCache, source: Source
) -> None:
    for content in (A, A, B, C, A):
        await use(cache, content)
    assert source.reads == [image(content).stored_digest for content in (A, B, C, A)]


async def test_a_partial_file_of_a_broken_fetch_is_removed_at_the_next_start(
    cache: ImageCache, tmp_path: Path
) -> None:
    partial = tmp_path / "images" / f".fetch-{image(A).sha256}-00"
    partial.write_bytes(b"half")
    await cache.create()
    assert not partial.exists()
