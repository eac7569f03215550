"""The contract of `BlobStore`, which every backend and the fake keep alike."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from image_store.blobs.directory import DirectoryBlobStore
from image_store.blobs.port import BlobStore
from image_store.digest import Digest, digest_of_hex
from image_store.errors import ImageNotFoundError, StoreFullError, StoreUnavailableError
from image_store_fakes import MemoryBlobStore

CONTENT = os.urandom(300_000)
DIGEST = digest_of_hex(hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(params=["directory", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    if request.param == "memory":
        yield MemoryBlobStore()
        return
    async with DirectoryBlobStore(tmp_path / "store") as directory:
        yield directory


async def put(store: BlobStore, content: bytes = CONTENT) -> Digest:
    async with store.upload(None) as upload:
        for begin in range(0, len(content), 100_000):
            await upload.write(content[begin : begin + 100_000])
        digest = await upload.seal()
        await upload.settle()
        await upload.publish()
    return digest


async def test_what_was_published_is_read_under_its_digest(store: BlobStore) -> None:
    assert await put(store) == DIGEST
    async with store.open(DIGEST) as reader:
        assert reader.size_bytes == len(CONTENT)
        assert await reader.read_at(0, len(CONTENT)) == CONTENT
        assert await reader.read_at(1000, 10) == CONTENT[1000:1010]
        assert await reader.read_at(len(CONTENT) - 5, 10) == CONTENT[-5:]
        assert await reader.read_at(len(CONTENT), 10) == b""
    assert await store.digests() == {DIGEST}


async def test_the_same_content_twice_is_one_blob(store: BlobStore) -> None:
    await put(store)
    await put(store)
    assert await store.digests() == {DIGEST}
    assert await store.remove_leftovers() == 0


async def test_sealed_bytes_can_be_examined_before_they_are_published(store: BlobStore) -> None:
    async with store.upload(None) as upload:
        await upload.write(CONTENT)
        await upload.seal()
        seen = await upload.examine(lambda source: (source.size_bytes, source.read_at(7, 3)))
    assert seen == (len(CONTENT), CONTENT[7:10])


async def test_an_upload_that_is_not_published_leaves_nothing(store: BlobStore) -> None:
    async with store.upload(None) as upload:
        await upload.write(CONTENT)
        await upload.seal()
        await upload.settle()
    assert await store.digests() == frozenset()
    assert await store.remove_leftovers() == 0


async def test_a_cancelled_upload_leaves_nothing(store: BlobStore) -> None:
    begun = asyncio.Event()

    async def upload_for_ever() -> None:
        async with store.upload(None) as upload:
            await upload.write(CONTENT)
            begun.set()
            while True:
                await upload.write(CONTENT)
                await asyncio.sleep(0)

    task = asyncio.create_task(upload_for_ever())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.remove_leftovers() == 0


async def test_a_deleted_blob_is_gone_and_deleting_it_again_is_fine(store: BlobStore) -> None:
    await put(store)
    await store.delete(DIGEST)
    await store.delete(DIGEST)
    assert await store.digests() == frozenset()
    with pytest.raises(ImageNotFoundError):
        async with store.open(DIGEST):
            pass


async def test_an_open_blob_outlives_its_delete(store: BlobStore) -> None:
    await put(store)
    async with store.open(DIGEST) as reader:
        await store.delete(DIGEST)
        assert await reader.read_at(0, len(CONTENT)) == CONTENT


async def test_an_upload_that_cannot_fit_is_refused_at_once(store: BlobStore) -> None:
    with pytest.raises(StoreFullError):
        async with store.upload(1 << 60):
            pass


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, StoreFullError), (errno.EDQUOT, StoreFullError), (errno.EIO, StoreUnavailableError)],
)
async def test_a_disk_that_fails_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    async with DirectoryBlobStore(tmp_path) as store:
        async with store.upload(None) as upload:
            await upload.write(CONTENT)
            with monkeypatch.context() as patch:
                patch.setattr("image_store.blobs.directory.os.write", _failing(number))
                with pytest.raises(expected):
                    await upload.write(CONTENT)
        assert await store.remove_leftovers() == 0
        assert await store.digests() == frozenset()


async def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    async with DirectoryBlobStore(tmp_path) as store:
        (tmp_path / "uploads" / "half").write_bytes(CONTENT)
        assert await store.remove_leftovers() == 1
        assert list((tmp_path / "uploads").iterdir()) == []


def _failing(number: int) -> object:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail
