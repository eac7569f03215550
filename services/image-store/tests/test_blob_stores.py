"""The contract of `BlobStore`, which every backend and the fake keep alike."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from image_store.blobs.directory import DirectoryBlobStore
from image_store.blobs.port import BlobStore, BlobUpload
from image_store.blobs.s3.store import S3BlobStore
from image_store.digest import Digest, digest_of_hex
from image_store.errors import ImageNotFoundError, StoreFullError, StoreUnavailableError
from image_store_buckets import assert_nothing_is_pending
from image_store_fakes import MemoryBlobStore
from image_store_world import MIB

CONTENT = os.urandom(300_000)
# More than two parts of an object, and part of another.
LARGE = os.urandom(MIB) * 19 + b"end"
DIGEST = digest_of_hex(hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(params=["directory", "memory", pytest.param("s3", marks=pytest.mark.minio)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    match request.param:
        case "memory":
            yield MemoryBlobStore()
        case "directory":
            async with DirectoryBlobStore(tmp_path / "store") as directory:
                yield directory
        case "s3":
            address = request.getfixturevalue("address")
            async with S3BlobStore(address, 64 * MIB, "test") as bucket:
                await bucket.check()
                yield bucket
                assert_nothing_is_pending(address)


async def write(upload: BlobUpload, content: bytes = CONTENT) -> Digest:
    """Write `content` and seal it."""
    for begin in range(0, len(content), MIB):
        await upload.write(content[begin : begin + MIB])
    return await upload.seal()


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


@pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=["empty", "byte", "large"])
async def test_content_of_any_size_comes_back_as_it_was(store: BlobStore, content: bytes) -> None:
    digest = await put(store, content)
    assert digest == digest_of_hex(hashlib.sha256(content).hexdigest())
    async with store.open(digest) as reader:
        read = [await reader.read_at(offset, MIB) for offset in range(0, len(content) + 1, MIB)]
    assert b"".join(read) == content


async def test_tables_of_large_content_can_be_examined(store: BlobStore) -> None:
    places = [(0, 100), (9 * MIB - 7, 20), (0, 12 * MIB), (len(LARGE) - 3, 100), (len(LARGE), 5), (MIB, 0)]
    async with store.upload(len(LARGE)) as upload:
        await write(upload, LARGE)
        seen = await upload.examine(lambda source: [source.read_at(*place) for place in places])
    assert seen == [LARGE[offset : offset + length] for offset, length in places]


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


async def test_a_large_upload_that_is_not_published_leaves_nothing(store: BlobStore) -> None:
    async with store.upload(None) as upload:
        await write(upload, LARGE)
    async with store.upload(None) as upload:
        await upload.write(LARGE)
    assert await store.digests() == frozenset()
    assert await store.remove_leftovers() == 0


async def test_leftovers_are_removed_beside_a_running_upload(store: BlobStore) -> None:
    async with store.upload(None) as upload:
        await upload.write(LARGE)
        assert await store.remove_leftovers() == 0
        digest = await upload.seal()
        assert await store.remove_leftovers() == 0
        await upload.publish()
        assert await store.remove_leftovers() == 0
    assert await store.digests() == {digest}


async def test_uploads_do_not_disturb_each_other(store: BlobStore) -> None:
    contents = [bytes([number]) * 9 * MIB for number in range(4)]
    digests = await asyncio.gather(*(put(store, content) for content in contents))
    for digest, content in zip(digests, contents, strict=True):
        async with store.open(digest) as reader:
            assert await reader.read_at(8 * MIB, 2 * MIB) == content[8 * MIB :]


async def test_a_backend_that_is_there_passes_its_check(store: BlobStore) -> None:
    await store.check()


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
