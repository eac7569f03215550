"""What goes wrong with a real MinIO, and how the store is when that is over. Nothing is restarted for it."""

from __future__ import annotations  # the stubs' classes for asyncio exist for the type checker only

import asyncio
import dataclasses
import datetime as dt
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from image_store.app import application
from image_store.blobs.s3.address import S3Address
from image_store.blobs.s3.objects import new_id
from image_store.blobs.s3.store import S3BlobStore
from image_store.blobs.s3.upload import S3Upload
from image_store.errors import StoreUnavailableError
from image_store.intake import UploadLimits
from image_store_buckets import address_of, assert_nothing_is_pending, client_of, keys_in, server
from image_store_disks import raw_disk
from image_store_world import MIB, Clock, World, messages, refused, running
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from prometheus_client import CollectorRegistry
from qcontroller.image.v1 import image_pb2, image_pb2_grpc
from qcontroller.settings.v1.settings_pb2 import ImageStoreSettings, S3Backend
from qcstack.minio import MinioServer
from servicekit.channel import grpc_channel

pytestmark = pytest.mark.minio

CALL_S = 90.0
LIMITS = UploadLimits(max_upload_bytes=512 * MIB, max_virtual_bytes=512 * MIB)
# Three parts, and more than may wait on the way.
DISK = raw_disk(40 * MIB, fill=b"disk")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def world_in(
    address: S3Address, tmp_path: Path, clock: Clock
) -> AsyncIterator[tuple[World, S3BlobStore]]:
    async with (
        S3BlobStore(address, LIMITS.max_upload_bytes, "test") as store,
        running(tmp_path, clock, LIMITS, store) as world,
    ):
        yield world, store


async def interrupted(fault: Callable[[], None]) -> AsyncIterator[image_pb2.UploadImageRequest]:
    """Yield the messages of an upload in whose middle `fault` happens."""
    for number, message in enumerate(messages(DISK)):
        if number == 12:
            await asyncio.to_thread(fault)
        yield message


async def test_a_server_that_dies_in_the_middle_of_an_upload_is_told_and_forgiven(
    own_minio: MinioServer, tmp_path: Path, clock: Clock
) -> None:
    address = address_of(own_minio)
    async with world_in(address, tmp_path, clock) as (world, store):
        with refused("IMAGE_STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            await world.images.UploadImage(interrupted(own_minio.kill), timeout=CALL_S)
        await asyncio.to_thread(own_minio.start)
        await store.check()
        assert await asyncio.to_thread(keys_in, address) == []
        await asyncio.to_thread(assert_nothing_is_pending, address)
        assert (await world.images.UploadImage(messages(DISK), timeout=CALL_S)).created


async def test_a_server_that_stands_still_does_not_hold_an_upload_for_ever(
    own_minio: MinioServer, tmp_path: Path, clock: Clock
) -> None:
    address = address_of(own_minio, read_s=1.0)
    async with world_in(address, tmp_path, clock) as (world, store):
        with refused("IMAGE_STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE) as refusal:
            await world.images.UploadImage(interrupted(own_minio.freeze), timeout=CALL_S)
        assert "does not answer in time" in refusal.problem.message
        own_minio.thaw()
        await store.check()
        await asyncio.to_thread(assert_nothing_is_pending, address)
        assert (await world.images.UploadImage(messages(DISK), timeout=CALL_S)).created


async def test_a_server_without_room_is_told_as_a_full_disk_and_nothing_stays(
    small_disk: Path, tmp_path: Path, clock: Clock
) -> None:
    with server(tmp_path / "minio", small_disk) as small:
        address = address_of(small)
        async with world_in(address, tmp_path, clock) as (world, store):
            with refused("DISK_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED):
                await world.images.UploadImage(messages(raw_disk(300 * MIB)), timeout=CALL_S)
            await store.check()
            assert await asyncio.to_thread(keys_in, address) == []
            await asyncio.to_thread(assert_nothing_is_pending, address)
            await accepted(world, small_disk)


async def accepted(world: World, disk: Path) -> None:
    """Upload as soon as the server believes that there is room again.

    It would empty its trash within five minutes, and notice that within seconds; it tells of neither.
    """
    async with asyncio.timeout(CALL_S):
        while True:
            await asyncio.to_thread(empty_trash, disk)
            try:
                await world.images.UploadImage(messages(DISK), timeout=CALL_S)
            except grpc.aio.AioRpcError as exc:
                assert exc.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - until it is accepted
            else:
                return


def empty_trash(disk: Path) -> None:
    for entry in (disk / ".minio.sys" / "tmp" / ".trash").iterdir():
        shutil.rmtree(entry, ignore_errors=True)


async def test_a_start_without_the_server_is_alive_says_why_and_becomes_ready(
    own_minio: MinioServer, tmp_path: Path
) -> None:
    own_minio.kill()
    settings = ImageStoreSettings(
        listen=[f"unix:{tmp_path}/public.sock"],
        database_url=f"sqlite:///{tmp_path}/image-store.db",
        s3=S3Backend(
            endpoint=own_minio.endpoint,
            bucket="images",
            access_key_file=str(own_minio.access_key_file),
            secret_key_file=str(own_minio.secret_key_file),
        ),
    )
    async with application(settings, CollectorRegistry()), grpc_channel(settings.listen[0]) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        images: image_pb2_grpc.ImageServiceAsyncStub = image_pb2_grpc.ImageServiceStub(channel)
        call = health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S, wait_for_ready=True)
        assert (await call).status == NOT_SERVING
        assert "cannot be reached" in dict(await call.trailing_metadata())["health-detail"]
        with refused("IMAGE_STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            await images.UploadImage(messages(raw_disk()), timeout=CALL_S)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        seen = aiter(watch)
        assert (await anext(seen)).status == NOT_SERVING
        await asyncio.to_thread(own_minio.start)
        assert (await anext(seen)).status == SERVING
        assert (await images.UploadImage(messages(raw_disk()), timeout=CALL_S)).created
        own_minio.kill()
        assert (await anext(seen)).status == NOT_SERVING
        watch.cancel()


async def test_what_a_killed_store_left_is_removed_also_when_the_server_was_restarted(
    own_minio: MinioServer,
) -> None:
    address = address_of(own_minio)
    async with S3BlobStore(address, LIMITS.max_upload_bytes, "test") as killed:
        await killed.check()
        # Uploads that never come to the end of their context.
        half, sealed, small, published = (
            S3Upload(killed._objects, killed._threads, new_id(), 8 * MIB) for _ in range(4)
        )
        for upload in (half, sealed, published):
            await upload.write(DISK)
        await half._landed()
        await sealed.seal()
        await small.write(b"small")
        await small.seal()
        digest = await published.seal()
        await published.publish()
    own_minio.kill()
    await asyncio.to_thread(own_minio.start)
    async with S3BlobStore(address, LIMITS.max_upload_bytes, "test") as store:
        assert await store.remove_leftovers() == 4
        assert await store.digests() == {digest}
        await asyncio.to_thread(assert_nothing_is_pending, address)
        assert len(await asyncio.to_thread(keys_in, address)) == 2
        async with store.open(digest) as reader:
            assert await reader.read_at(0, 100) == DISK[:100]


async def test_a_name_whose_bytes_are_gone_is_no_blob_and_stands_in_nobodys_way(address: S3Address) -> None:
    async with S3BlobStore(address, LIMITS.max_upload_bytes, "test") as store:
        await store.check()
        async with store.upload(None) as upload:
            await upload.write(DISK)
            digest = await upload.seal()
            await asyncio.to_thread(store._objects.publish, digest, upload.data)
        # The upload did not know that it was published, and took its bytes away.
        async with store.upload(None) as upload:
            await upload.write(DISK)
            await upload.seal()
            await upload.publish()
        async with store.open(digest) as reader:
            assert await reader.read_at(0, 100) == DISK[:100]
        assert len(await asyncio.to_thread(keys_in, address)) == 2


@pytest.mark.parametrize(
    ("field", "what"), [("access_key_file", "access key"), ("secret_key_file", "secret key")]
)
async def test_wrong_keys_are_named_and_right_ones_are_taken_without_a_restart(
    minio: MinioServer, address: S3Address, tmp_path: Path, field: str, what: str
) -> None:
    file = tmp_path / "key"
    file.write_text("wrong-wrong-wrong", encoding="ascii")
    changed = address_of(minio, address.bucket, **{field: file})
    async with S3BlobStore(changed, LIMITS.max_upload_bytes, "test") as store:
        with pytest.raises(StoreUnavailableError, match=what):
            await store.check()
        file.write_bytes(getattr(minio, field).read_bytes())
        await store.check()


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
async def test_keys_that_cannot_be_read_are_named(
    minio: MinioServer, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    async with S3BlobStore(address_of(minio, secret_key_file=file), LIMITS.max_upload_bytes, "test") as store:
        with pytest.raises(StoreUnavailableError, match="secretKeyFile"):
            await store.check()


async def test_a_missing_bucket_that_may_not_be_made_is_named(minio: MinioServer, tmp_path: Path) -> None:
    root = StaticProvider(
        minio.access_key_file.read_text(encoding="ascii").strip(),
        minio.secret_key_file.read_text(encoding="ascii").strip(),
    )
    admin = MinioAdmin(endpoint=minio.endpoint, credentials=root, secure=False)
    statement = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::*"]}
    user, secret = tmp_path / "user", tmp_path / "secret"
    user.write_text("lister", encoding="ascii")
    secret.write_text("lister-secret", encoding="ascii")

    def make_user() -> None:
        admin.policy_add("lister", policy={"Version": "2012-10-17", "Statement": [statement]})
        admin.user_add("lister", "lister-secret")
        admin.attach_policy(["lister"], user="lister")

    await asyncio.to_thread(make_user)
    limited = address_of(minio, "nobodys", access_key_file=user, secret_key_file=secret)
    async with S3BlobStore(limited, LIMITS.max_upload_bytes, "test") as store:
        with pytest.raises(StoreUnavailableError, match=r"no bucket 'nobodys'.* may not make it"):
            await store.check()


async def test_a_clock_that_is_wrong_is_named(address: S3Address, monkeypatch: pytest.MonkeyPatch) -> None:
    now = dt.datetime.now(dt.UTC)
    monkeypatch.setattr("minio.time.utcnow", lambda: now - dt.timedelta(minutes=20))
    async with S3BlobStore(address, LIMITS.max_upload_bytes, "test") as store:
        with pytest.raises(StoreUnavailableError, match="clock"):
            await store.check()


async def test_a_place_of_another_store_is_refused_until_it_is_given_up(address: S3Address) -> None:
    async with S3BlobStore(address, LIMITS.max_upload_bytes, "first") as first:
        await first.check()
        await put(first, 1)
    before = await asyncio.to_thread(keys_in, address)
    async with S3BlobStore(address, LIMITS.max_upload_bytes, "second") as second:
        for refused_call in (second.check, second.remove_leftovers, second.digests):
            with pytest.raises(StoreUnavailableError, match="another image store"):
                await refused_call()
        with pytest.raises(StoreUnavailableError, match="another image store"):
            await put(second, 1)
        assert await asyncio.to_thread(keys_in, address) == before
        await asyncio.to_thread(client_of(address).remove_object, address.bucket, "owner")
        await second.check()


async def test_two_stores_share_a_bucket_by_prefixes(minio: MinioServer, address: S3Address) -> None:
    one, other = (dataclasses.replace(address, prefix=f"{name}/") for name in ("one", "other"))
    async with (
        S3BlobStore(one, LIMITS.max_upload_bytes, "first") as first,
        S3BlobStore(other, LIMITS.max_upload_bytes, "second") as second,
    ):
        await first.check()
        await second.check()
        await put(first, 10)
        assert await second.digests() == frozenset()
        assert await second.remove_leftovers() == 0
        assert len(await first.digests()) == 1


async def test_a_server_that_is_no_s3_service_is_named(minio: MinioServer, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/html\r\n\r\n<html>welcome")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1")
    port = other.sockets[0].getsockname()[1]
    address = dataclasses.replace(address_of(minio), endpoint=f"127.0.0.1:{port}")
    async with other, S3BlobStore(address, LIMITS.max_upload_bytes, "test") as store:
        with pytest.raises(StoreUnavailableError, match="not answer as an S3 service"):
            await store.check()


async def test_tls_is_spoken_with_the_authorities_that_the_settings_name(tmp_path: Path) -> None:
    certificates = tmp_path / "minio" / "certs"
    certificates.mkdir(parents=True)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=minio"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", certificates / "private.key", "-out", certificates / "public.crt"),
        ],
        check=True,
        capture_output=True,
    )
    with server(tmp_path / "minio") as secure:
        trusted = address_of(secure, secure=True, ca_file=certificates / "public.crt")
        async with S3BlobStore(trusted, LIMITS.max_upload_bytes, "test") as store:
            await store.check()
            await put(store, 20)
        for wrong in (address_of(secure, secure=True), address_of(secure), no_authorities(trusted, tmp_path)):
            async with S3BlobStore(wrong, LIMITS.max_upload_bytes, "test") as store:
                with pytest.raises(StoreUnavailableError, match="secure"):
                    await store.check()


def no_authorities(address: S3Address, tmp_path: Path) -> S3Address:
    return dataclasses.replace(address, ca_file=tmp_path / "no-such-file")


@pytest.mark.parametrize("mib", [128, pytest.param(1024, marks=pytest.mark.full)])
async def test_a_large_upload_takes_no_more_memory_than_a_small_one(address: S3Address, mib: int) -> None:
    async with S3BlobStore(address, 2048 * MIB, "test") as store:
        await store.check()
        await put(store, 16)
        before = resident_mib()
        await put(store, mib)
        assert resident_mib() - before < 64


async def put(store: S3BlobStore, mib: int) -> None:
    block = os.urandom(MIB)
    async with store.upload(mib * MIB) as upload:
        for _ in range(mib):
            await upload.write(block)
        digest = await upload.seal()
        await upload.publish()
    async with store.open(digest) as reader:
        for number in range(mib):
            assert await reader.read_at(number * MIB, MIB) == block


def resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 // MIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with too little room."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
