"""Uploads over the wire: all or nothing."""

from __future__ import annotations  # the stubs' classes for asyncio exist for the type checker only

import asyncio
import gzip
import hashlib
import lzma
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from backports import zstd
from image_store.intake import UploadLimits
from image_store_disks import converted, qcow2, raw_disk
from image_store_fakes import MemoryBlobStore
from image_store_world import CALL_S, MIB, Clock, World, messages, refused, running
from qcontroller.image.v1 import image_pb2, image_pb2_grpc

INVALID = grpc.StatusCode.INVALID_ARGUMENT
CONFLICT = grpc.StatusCode.FAILED_PRECONDITION


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


async def nothing_is_stored(world: World) -> None:
    answer = await world.images.ListImages(image_pb2.ListImagesRequest(), timeout=CALL_S)
    assert list(answer.images) == []
    assert world.blob_files() == set()
    assert world.upload_files() == []


async def test_an_upload_becomes_an_image(world: World) -> None:
    content = converted()
    answer = await world.upload(content, "debian-12", labels={"team": "web"}, content_length=len(content))
    assert answer.created
    assert not answer.replayed
    image = answer.image
    assert image.name == "debian-12"
    assert image.digest == image.stored_digest == digest_of(content)
    assert (image.format, image.arch, image.state) == ("qcow2", "x86_64", image_pb2.IMAGE_STATE_READY)
    assert (image.size_bytes, image.virtual_size_bytes) == (len(content), 2 * MIB)
    assert dict(image.labels) == {"team": "web"}
    assert await world.get("debian-12") == image
    assert world.blob_files() == {digest_of(content).removeprefix("sha256:")}
    assert world.upload_files() == []


async def test_two_names_share_one_blob(world: World) -> None:
    await world.upload(raw_disk(), "one")
    await world.upload(raw_disk(), "two")
    assert len(world.blob_files()) == 1
    await world.delete("one")
    assert len(world.blob_files()) == 1
    await world.delete("two")
    assert world.blob_files() == set()


async def test_new_bytes_under_an_old_name_replace_it(world: World) -> None:
    first = (await world.upload(raw_disk())).image
    answer = await world.upload(raw_disk(fill=b"x"))
    assert not answer.created
    assert answer.image.digest != first.digest
    assert answer.image.etag != first.etag
    assert world.blob_files() == {answer.image.digest.removeprefix("sha256:")}


async def test_the_same_upload_again_changes_nothing(world: World) -> None:
    first = await world.upload(raw_disk())
    second = await world.upload(raw_disk())
    assert second.image == first.image
    assert not second.created


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"just some text, no disk\n" * 10_000, "IMAGE_FORMAT_UNKNOWN"),
        (b"short", "IMAGE_FORMAT_UNKNOWN"),
        (b"", "IMAGE_FORMAT_UNKNOWN"),
    ],
)
async def test_what_is_no_disk_leaves_nothing(world: World, content: bytes, reason: str) -> None:
    with refused(reason, INVALID):
        await world.upload(content)
    await nothing_is_stored(world)


async def test_an_unsafe_disk_names_its_rule_and_leaves_nothing(world: World) -> None:
    with refused("IMAGE_UNSAFE", INVALID) as refusal:
        await world.upload(qcow2("-b", "/etc/passwd", "-F", "raw", "-u"))
    assert refusal.problem.metadata["rule"] == "backing_file"
    await nothing_is_stored(world)


async def test_an_unsafe_disk_is_refused_before_its_end_has_come(world: World) -> None:
    more = asyncio.Event()

    async def head_only() -> AsyncIterator[image_pb2.UploadImageRequest]:
        for message in messages(qcow2("-b", "/etc/passwd", "-F", "raw", "-u"), end=False):
            yield message
        await more.wait()

    with refused("IMAGE_UNSAFE", INVALID):
        await world.images.UploadImage(head_only(), timeout=CALL_S)
    await nothing_is_stored(world)


async def test_other_bytes_than_expected_leave_nothing(world: World) -> None:
    with refused("IMAGE_DIGEST_MISMATCH", INVALID) as refusal:
        await world.upload(raw_disk(), expected_digest="sha256:" + "0" * 64)
    assert refusal.problem.metadata["actual"] == digest_of(raw_disk())
    await nothing_is_stored(world)


async def test_more_bytes_than_announced_leave_nothing(world: World) -> None:
    with refused("FIELD_INVALID", INVALID) as refusal:
        await world.upload(raw_disk(), content_length=len(raw_disk()) - 1)
    assert refusal.pointers == ["/contentLength"]
    await nothing_is_stored(world)


@pytest.mark.parametrize(
    "stream",
    [
        list(messages(raw_disk(), end=False)),
        list(messages(raw_disk(), content_length=len(raw_disk()) + 1)),
        list(messages(raw_disk(), content_length=len(raw_disk()) + 1, end=False)),
        [*messages(raw_disk(), end=False), image_pb2.UploadImageRequest(end={"total_bytes": 1 << 20})],  # type: ignore[arg-type]
    ],
    ids=["no end", "end before the announced bytes", "fewer than announced", "fewer than counted"],
)
async def test_an_upload_that_is_not_shown_to_be_whole_leaves_nothing(
    world: World, stream: list[image_pb2.UploadImageRequest]
) -> None:
    with refused("UPLOAD_TRUNCATED", INVALID):
        await world.images.UploadImage(iter(stream), timeout=CALL_S)
    await nothing_is_stored(world)


async def test_the_announced_bytes_need_no_end(world: World) -> None:
    stream = messages(raw_disk(), content_length=len(raw_disk()), end=False)
    assert (await world.images.UploadImage(stream, timeout=CALL_S)).created


@pytest.mark.parametrize("announced", [0, 9 * MIB])
async def test_more_than_the_limit_leaves_nothing(world: World, announced: int) -> None:
    with refused("BODY_TOO_LARGE", INVALID) as refusal:
        await world.upload(raw_disk(9 * MIB), content_length=announced)
    assert refusal.problem.metadata == {"limitBytes": str(8 * MIB)}
    await nothing_is_stored(world)


async def half(sent: asyncio.Event) -> AsyncIterator[image_pb2.UploadImageRequest]:
    """Send a raw disk, which is whole after every sector, and neither end nor go on."""
    for message in messages(raw_disk(2 * MIB), end=False):
        yield message
    sent.set()
    await asyncio.Event().wait()


async def test_a_client_that_hangs_up_leaves_nothing(world: World) -> None:
    """Many times, since a hang-up may overtake the bytes."""
    async with plain_channel(world) as channel:
        stub: image_pb2_grpc.ImageServiceAsyncStub = image_pb2_grpc.ImageServiceStub(channel)
        for _ in range(20):
            sent = asyncio.Event()
            call = stub.UploadImage(half(sent), timeout=CALL_S)
            await sent.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    await uploads_ended(world)
    await nothing_is_stored(world)


async def test_a_connection_that_is_cut_leaves_nothing(world: World) -> None:
    sent = asyncio.Event()
    async with plain_channel(world) as channel:
        stub: image_pb2_grpc.ImageServiceAsyncStub = image_pb2_grpc.ImageServiceStub(channel)
        call = stub.UploadImage(half(sent), timeout=CALL_S)
        await sent.wait()
        await channel.close(grace=0)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await call
    await uploads_ended(world)
    await nothing_is_stored(world)


async def test_a_sender_that_fails_leaves_nothing(world: World) -> None:
    async def failing() -> AsyncIterator[image_pb2.UploadImageRequest]:
        for message in messages(raw_disk(2 * MIB), end=False):
            yield message
        raise ConnectionResetError

    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await world.images.UploadImage(failing(), timeout=CALL_S)
    await uploads_ended(world)
    await nothing_is_stored(world)


def plain_channel(world: World) -> grpc.aio.Channel:
    """Return a channel without interceptors: OpenTelemetry's do not pass a cancel on to a streamed upload."""
    return grpc.aio.insecure_channel(f"unix:{world.directory}/public.sock")


async def uploads_ended(world: World) -> None:
    """Wait until the store has noticed: its gauge is what tells."""
    async with asyncio.timeout(CALL_S):
        while world.registry.get_sample_value("image_store_uploads_running"):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)


async def test_a_full_disk_leaves_nothing(tmp_path: Path, clock: Clock, limits: UploadLimits) -> None:
    store = MemoryBlobStore(capacity_bytes=3 * MIB)
    async with running(tmp_path, clock, limits, store) as world:
        with refused("DISK_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED):
            await world.upload(raw_disk(5 * MIB))
        assert not store.blobs
        assert not store.uploads
        assert (await world.upload(raw_disk(2 * MIB))).created


async def test_an_announced_upload_that_cannot_fit_is_refused(
    tmp_path: Path, clock: Clock, limits: UploadLimits
) -> None:
    async with running(tmp_path, clock, limits, MemoryBlobStore(capacity_bytes=3 * MIB)) as world:
        with refused("DISK_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED):
            await world.upload(raw_disk(5 * MIB), content_length=5 * MIB)


async def test_all_faults_of_an_upload_are_named(world: World) -> None:
    with refused("FIELD_INVALID", INVALID) as refusal:
        await world.upload(
            raw_disk(),
            "../x",
            expected_digest="md5:1",
            arch="vax",
            labels={"a=b": "1", "long": "x" * 300},
            request_id="k" * 2000,
        )
    assert sorted(refusal.pointers) == [
        "/arch",
        "/expectedDigest",
        "/labels/a=b",
        "/labels/long",
        "/name",
        "/requestId",
    ]
    await nothing_is_stored(world)


@pytest.mark.parametrize("name", ["Upper", "../x", "a/b", "-a", "a-", ".", "a" * 129, "ä", "a\n"])
async def test_a_name_outside_the_grammar_is_refused(world: World, name: str) -> None:
    with refused("FIELD_INVALID", INVALID) as refusal:
        await world.upload(raw_disk(), name)
    assert refusal.pointers == ["/name"]


@pytest.mark.parametrize("name", ["a", "debian-12", "debian_12.5", "0", "a" * 128])
async def test_a_name_of_the_grammar_is_taken(world: World, name: str) -> None:
    assert (await world.upload(raw_disk(), name)).image.name == name


def form(content: bytes, *names: str) -> Iterator[image_pb2.UploadImageRequest]:
    """Yield an upload whose names come after the bytes."""
    yield from messages(content, "", end=False)
    for name in names:
        yield image_pb2.UploadImageRequest(name=name)
    yield image_pb2.UploadImageRequest(end=image_pb2.UploadEnd())


async def test_a_name_may_come_after_the_bytes(world: World) -> None:
    answer = await world.images.UploadImage(form(raw_disk(), "late"), timeout=CALL_S)
    assert answer.image.name == "late"


@pytest.mark.parametrize("names", [(), ("../x",), ("one", "two"), ("one", "one")])
async def test_a_late_name_comes_once_and_is_a_name(world: World, names: tuple[str, ...]) -> None:
    with refused("FIELD_INVALID", INVALID) as refusal:
        await world.images.UploadImage(form(raw_disk(), *names), timeout=CALL_S)
    assert refusal.pointers == ["/name"]
    await nothing_is_stored(world)


@pytest.mark.parametrize(
    ("stream", "pointer"),
    [
        ([], "/upload"),
        ([image_pb2.UploadImageRequest(chunk=b"x")], "/upload"),
        ([*messages(b"", "a", end=False), *messages(b"", "a")], "/upload"),
        ([*messages(b"", "a", end=False), image_pb2.UploadImageRequest()], ""),
        ([*messages(b"", "a", end=False), image_pb2.UploadImageRequest(chunk=bytes(MIB + 1))], "/chunk"),
    ],
)
async def test_messages_out_of_order_are_refused(
    world: World, stream: list[image_pb2.UploadImageRequest], pointer: str
) -> None:
    with refused("FIELD_INVALID", INVALID) as refusal:
        await world.images.UploadImage(iter(stream), timeout=CALL_S)
    assert refusal.pointers == [pointer]


async def test_a_silent_sender_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("image_store.servicers.upload_stream.UploadStream.__init__.__defaults__", (0.05,))

    async def silent() -> AsyncIterator[image_pb2.UploadImageRequest]:
        yield next(messages(b""))
        await asyncio.Event().wait()

    with refused("UPLOAD_STALLED", grpc.StatusCode.DEADLINE_EXCEEDED):
        await world.images.UploadImage(silent(), timeout=CALL_S)
    await nothing_is_stored(world)


async def test_a_repeat_gets_the_stored_answer(world: World) -> None:
    first = await world.upload(raw_disk(), request_id="key", if_none_match="*")
    await world.upload(raw_disk(fill=b"x"))
    again = await world.upload(raw_disk(), request_id="key", if_none_match="*")
    assert again.replayed
    assert again.created
    assert again.image == first.image
    assert (await world.get("disk")).digest == digest_of(raw_disk(fill=b"x"))
    assert len(world.blob_files()) == 1


async def test_concurrent_repeats_create_once(world: World) -> None:
    answers = await asyncio.gather(*(world.upload(raw_disk(), request_id="key") for _ in range(5)))
    assert sorted(answer.replayed for answer in answers) == [False, True, True, True, True]
    assert all(answer.created for answer in answers)


@pytest.mark.parametrize("fields", [{"name": "other"}, {"arch": "aarch64"}, {"labels": {"a": "b"}}])
async def test_a_key_with_another_request_is_refused(world: World, fields: dict[str, object]) -> None:
    await world.upload(raw_disk(), request_id="key")
    with refused("IDEMPOTENCY_KEY_REUSED", INVALID):
        await world.upload(raw_disk(), request_id="key", **fields)  # type: ignore[arg-type]


async def test_a_key_with_other_bytes_is_refused_and_leaves_nothing(world: World) -> None:
    await world.upload(raw_disk(), request_id="key")
    with refused("IDEMPOTENCY_KEY_REUSED", INVALID):
        await world.upload(raw_disk(fill=b"x"), request_id="key")
    assert world.blob_files() == {digest_of(raw_disk()).removeprefix("sha256:")}


async def test_a_refused_request_does_not_use_up_its_key(world: World) -> None:
    with refused("IMAGE_FORMAT_UNKNOWN", INVALID):
        await world.upload(b"text", request_id="key")
    assert not (await world.upload(raw_disk(), request_id="key")).replayed


async def test_a_key_is_forgotten_after_two_days(world: World) -> None:
    await world.upload(raw_disk(), request_id="key")
    world.clock.advance(timedelta(hours=48))
    assert not (await world.upload(raw_disk(fill=b"x"), request_id="key")).replayed


async def test_a_name_that_must_not_exist_is_refused_when_it_does(world: World) -> None:
    await world.upload(raw_disk(), if_none_match="*")
    with refused("PRECONDITION_FAILED", CONFLICT):
        await world.upload(raw_disk(fill=b"x"), if_none_match="*")


async def test_an_upload_over_a_version_needs_that_version(world: World) -> None:
    first = (await world.upload(raw_disk())).image
    second = (await world.upload(raw_disk(fill=b"x"), if_match=first.etag)).image
    with refused("PRECONDITION_FAILED", CONFLICT) as refusal:
        await world.upload(raw_disk(fill=b"y"), if_match=first.etag)
    assert refusal.problem.metadata["etag"] == second.etag


async def test_a_version_that_must_be_there_is_not_there(world: World) -> None:
    with refused("PRECONDITION_FAILED", CONFLICT):
        await world.upload(raw_disk(), if_match="*")
    await nothing_is_stored(world)


async def test_a_stale_precondition_is_told_before_the_bytes_come(world: World) -> None:
    async def opening_only() -> AsyncIterator[image_pb2.UploadImageRequest]:
        yield next(messages(b"", if_match="1-1"))
        await asyncio.Event().wait()

    with refused("PRECONDITION_FAILED", CONFLICT):
        await world.images.UploadImage(opening_only(), timeout=CALL_S)


FORMS = [gzip.compress, lzma.compress, zstd.compress]


@pytest.mark.parametrize("compress", FORMS)
async def test_a_compressed_upload_is_stored_unpacked(
    world: World, compress: Callable[[bytes], bytes]
) -> None:
    packed = compress(converted())
    image = (await world.upload(packed, expected_digest=digest_of(packed), content_length=len(packed))).image
    assert (image.digest, image.stored_digest) == (digest_of(packed), digest_of(converted()))
    assert (image.format, image.size_bytes) == ("qcow2", len(converted()))
    assert world.blob_files() == {digest_of(converted()).removeprefix("sha256:")}


async def test_the_packed_and_the_unpacked_upload_share_a_blob(world: World) -> None:
    await world.upload(raw_disk(), "plain")
    await world.upload(gzip.compress(raw_disk()), "packed")
    assert len(world.blob_files()) == 1
    await world.delete("plain")
    assert len(world.blob_files()) == 1
    await world.delete("packed")
    assert world.blob_files() == set()


@pytest.mark.parametrize("compress", FORMS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"just some text, no disk\n" * 10_000, "IMAGE_FORMAT_UNKNOWN"),
        (gzip.compress(raw_disk()), "IMAGE_FORMAT_UNKNOWN"),
        # The world's limit is 8 MiB.
        (raw_disk(9 * MIB), "IMAGE_UNPACKS_TOO_LARGE"),
    ],
    ids=["text", "twice", "bomb"],
)
async def test_what_compressed_bytes_unpack_to_is_looked_at(
    world: World, compress: Callable[[bytes], bytes], content: bytes, reason: str
) -> None:
    with refused(reason, INVALID):
        await world.upload(compress(content))
    await nothing_is_stored(world)


@pytest.mark.parametrize("compress", FORMS)
async def test_a_cut_compressed_upload_leaves_nothing(
    world: World, compress: Callable[[bytes], bytes]
) -> None:
    with refused("IMAGE_DAMAGED", INVALID):
        await world.upload(compress(converted())[:-9])
    await nothing_is_stored(world)
