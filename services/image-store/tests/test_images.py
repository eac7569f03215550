"""Lists, downloads, deletes, pins and blobs over the wire."""

from __future__ import annotations  # grpc's classes are generic in its stubs only

import asyncio

import grpc
import pytest
from image_store_disks import converted, raw_disk
from image_store_world import CALL_S, MIB, World, refused
from qcontroller.image.v1 import image_pb2, internal_pb2

NOT_FOUND = grpc.StatusCode.NOT_FOUND
CONFLICT = grpc.StatusCode.FAILED_PRECONDITION
INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def list_names(world: World, **fields: object) -> tuple[list[str], str]:
    request = image_pb2.ListImagesRequest(**fields)  # type: ignore[arg-type]
    answer = await world.images.ListImages(request, timeout=CALL_S)
    return [image.name for image in answer.images], answer.next_page_token


async def download(world: World, **fields: int) -> tuple[image_pb2.Image, bytes]:
    call = world.images.DownloadImage(image_pb2.DownloadImageRequest(name="disk", **fields), timeout=CALL_S)
    messages = [message async for message in call]
    assert all(not message.HasField("image") for message in messages[1:])
    return messages[0].image, b"".join(message.chunk for message in messages)


async def test_an_unknown_image_is_not_found(world: World) -> None:
    with refused("IMAGE_NOT_FOUND", NOT_FOUND):
        await world.get("none")
    with refused("IMAGE_NOT_FOUND", NOT_FOUND):
        await world.delete("none")
    with refused("IMAGE_NOT_FOUND", NOT_FOUND):
        await world.pin("web-1", "none")
    with refused("IMAGE_NOT_FOUND", NOT_FOUND):
        await world.read_blob("sha256:" + "0" * 64)


async def test_pages_are_stable_while_images_come_and_go(world: World) -> None:
    for name in ("b", "d", "f", "h"):
        await world.upload(raw_disk(), name)
    first, token = await list_names(world, page_size=2)
    await world.upload(raw_disk(), "a")
    await world.delete("d")
    second, end = await list_names(world, page_size=2, page_token=token)
    assert (first, second, end) == (["b", "d"], ["f", "h"], "")


async def test_a_list_shows_what_has_all_labels(world: World) -> None:
    await world.upload(raw_disk(), "one", labels={"team": "web", "tier": "a"})
    await world.upload(raw_disk(), "two", labels={"team": "web"})
    assert (await list_names(world, labels=["team=web"]))[0] == ["one", "two"]
    assert (await list_names(world, labels=["team=web", "tier=a"]))[0] == ["one"]
    assert (await list_names(world, labels=["tier=b"]))[0] == []


async def test_a_list_shows_what_is_in_any_of_the_states(world: World) -> None:
    await world.upload(raw_disk(), "one")
    ready, deleting = image_pb2.IMAGE_STATE_READY, image_pb2.IMAGE_STATE_DELETING
    assert (await list_names(world, states=[ready, deleting]))[0] == ["one"]
    assert (await list_names(world, states=[deleting]))[0] == []


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"labels": ["a=b", "no-equals"]}, "/labels/1"),
        ({"states": [0]}, "/states/0"),
    ],
)
async def test_a_faulty_list_is_refused(world: World, fields: dict[str, object], pointer: str) -> None:
    with refused("FIELD_INVALID", INVALID) as refusal:
        await list_names(world, **fields)
    assert refusal.pointers == [pointer]


async def test_a_page_token_belongs_to_its_filter(world: World) -> None:
    for name in ("a", "b"):
        await world.upload(raw_disk(), name, labels={"team": "web"})
    _, token = await list_names(world, page_size=1, labels=["team=web"])
    with refused("PAGE_TOKEN_INVALID", INVALID):
        await list_names(world, page_size=1, page_token=token)


@pytest.mark.parametrize("token", ["junk", "äö", "W10", "bnVsbA"])
async def test_what_is_no_page_token_is_refused(world: World, token: str) -> None:
    with refused("PAGE_TOKEN_INVALID", INVALID):
        await list_names(world, page_token=token)


async def test_a_download_gives_the_bytes_back(world: World) -> None:
    content = converted(mib=3)
    image = (await world.upload(content)).image
    assert await download(world) == (image, content)


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (100, 0), (65_530, 100), (1, 1)])
async def test_a_part_of_the_bytes_can_be_downloaded(world: World, offset: int, length: int) -> None:
    content = raw_disk(65_536, fill=b"0123456789")
    await world.upload(content)
    _, part = await download(world, offset=offset, length=length)
    assert part == content[offset : offset + length if length else None]


async def test_a_download_from_behind_the_end_is_refused(world: World) -> None:
    await world.upload(raw_disk(65_536))
    with refused("RANGE_NOT_SATISFIABLE", grpc.StatusCode.OUT_OF_RANGE) as refusal:
        await download(world, offset=65_536)
    assert refusal.problem.metadata["totalBytes"] == "65536"


async def test_a_runner_reads_a_blob_in_chunks_with_its_size_and_format_first(world: World) -> None:
    content = raw_disk(2 * MIB + 512, fill=b"abc")
    digest = (await world.upload(content)).image.stored_digest
    first, *rest = await world.read_blob(digest)
    assert (first.size_bytes, first.format, first.chunk) == (len(content), "raw", b"")
    assert [len(message.chunk) for message in rest] == [MIB, MIB, 512]
    assert b"".join(message.chunk for message in rest) == content
    resumed = await world.read_blob(digest, offset=MIB)
    assert b"".join(message.chunk for message in resumed) == content[MIB:]


async def test_a_runner_that_has_it_all_gets_the_size_alone(world: World) -> None:
    digest = (await world.upload(raw_disk(65_536))).image.stored_digest
    (only,) = await world.read_blob(digest, offset=65_536)
    assert only.size_bytes == 65_536
    with refused("RANGE_NOT_SATISFIABLE", grpc.StatusCode.OUT_OF_RANGE):
        await world.read_blob(digest, offset=65_537)


async def test_a_blob_is_asked_for_by_a_digest(world: World) -> None:
    with refused("FIELD_INVALID", INVALID) as refusal:
        await world.read_blob("../../etc/passwd")
    assert refusal.pointers == ["/storedDigest"]


async def test_a_deleted_image_is_gone_with_its_blob(world: World) -> None:
    await world.upload(raw_disk())
    await world.delete("disk")
    with refused("IMAGE_NOT_FOUND", NOT_FOUND):
        await world.get("disk")
    assert world.blob_files() == set()


async def test_a_repeated_delete_gets_the_stored_answer(world: World) -> None:
    await world.upload(raw_disk())
    assert not (await world.delete("disk", request_id="key")).replayed
    assert (await world.delete("disk", request_id="key")).replayed
    with refused("IDEMPOTENCY_KEY_REUSED", INVALID):
        await world.delete("other", request_id="key")


async def test_a_delete_of_another_version_is_refused(world: World) -> None:
    stale = (await world.upload(raw_disk())).image.etag
    fresh = (await world.upload(raw_disk(fill=b"x"))).image.etag
    with refused("PRECONDITION_FAILED", CONFLICT):
        await world.delete("disk", if_match=stale)
    await world.delete("disk", if_match=fresh)


async def test_an_etag_never_comes_back_with_a_name(world: World) -> None:
    stale = (await world.upload(raw_disk())).image.etag
    await world.delete("disk")
    await world.upload(raw_disk())
    with refused("PRECONDITION_FAILED", CONFLICT):
        await world.delete("disk", if_match=stale)


async def test_a_pin_resolves_the_name_and_shows_in_used_by(world: World) -> None:
    image = (await world.upload(raw_disk())).image
    answer = await world.pin("web-1", expected_digest=image.digest)
    assert answer.pin.digest == image.digest
    assert answer.pin.stored_digest == image.stored_digest
    assert list(answer.image.used_by) == ["web-1"]
    assert list((await world.get("disk")).used_by) == ["web-1"]
    listed = await world.pins.ListPins(internal_pb2.ListPinsRequest(), timeout=CALL_S)
    assert list(listed.pins) == [answer.pin]


async def test_users_come_and_go_without_breaking_a_precondition(world: World) -> None:
    etag = (await world.upload(raw_disk())).image.etag
    await world.pin("web-1")
    assert (await world.get("disk")).etag != etag
    await world.unpin("web-1")
    await world.delete("disk", if_match=etag)


async def test_a_pin_of_other_content_than_expected_is_refused(world: World) -> None:
    await world.upload(raw_disk())
    with refused("IMAGE_DIGEST_MISMATCH", INVALID):
        await world.pin("web-1", expected_digest="sha256:" + "0" * 64)
    assert list((await world.get("disk")).used_by) == []


async def test_all_faults_of_a_pin_are_named(world: World) -> None:
    with refused("FIELD_INVALID", INVALID) as refusal:
        await world.pins.PinImage(internal_pb2.PinImageRequest(expected_digest="x"), timeout=CALL_S)
    assert refusal.pointers == ["/instanceId", "/instanceName", "/imageName", "/expectedDigest"]


async def test_a_repeated_pin_gets_the_first_one_back(world: World) -> None:
    await world.upload(raw_disk())
    first = await world.pin("web-1")
    await world.upload(raw_disk(fill=b"x"))
    assert await world.pin("web-1") == first


async def test_a_pinned_image_is_not_deleted_and_names_its_users(world: World) -> None:
    await world.upload(raw_disk())
    await world.pin("web-2")
    await world.pin("web-1")
    with refused("IMAGE_IN_USE", CONFLICT) as refusal:
        await world.delete("disk")
    assert refusal.problem.metadata["users"] == "web-1,web-2"
    assert world.blob_files()


async def test_a_pinned_blob_outlives_its_name(world: World) -> None:
    old = (await world.upload(raw_disk())).image.stored_digest
    await world.pin("web-1")
    await world.upload(raw_disk(fill=b"x"))
    assert list((await world.get("disk")).used_by) == []
    await world.delete("disk")
    assert (await world.read_blob(old))[0].size_bytes == len(raw_disk())
    await world.unpin("web-1")
    assert world.blob_files() == set()


async def test_an_unpin_is_harmless_twice(world: World) -> None:
    await world.upload(raw_disk())
    await world.pin("web-1")
    await world.unpin("web-1")
    await world.unpin("web-1")
    assert list((await world.get("disk")).used_by) == []


async def test_a_delete_never_takes_the_bytes_of_a_simultaneous_upload(world: World) -> None:
    """A name comes and goes while another of the same content is stored again and again."""
    for number in range(10):
        await world.upload(raw_disk(), "goes")
        await asyncio.gather(world.delete("goes"), world.upload(raw_disk(), f"stays-{number}"))
        digest = (await world.get(f"stays-{number}")).stored_digest
        assert len(await world.read_blob(digest)) > 1
        await world.delete(f"stays-{number}")


async def test_each_edge_serves_its_own_services_only(world: World) -> None:
    await world.upload(raw_disk())
    request = image_pb2.GetImageRequest(name="disk")
    assert (await world.controller_images.GetImage(request, timeout=CALL_S)).image.name == "disk"
    for edge, method in (
        ("public", "/qcontroller.image.v1.ImagePinService/ListPins"),
        ("public", "/qcontroller.image.v1.BlobService/ReadBlob"),
        ("controller", "/qcontroller.image.v1.BlobService/ReadBlob"),
        ("runner", "/qcontroller.image.v1.ImageService/ListImages"),
        ("runner", "/qcontroller.image.v1.ImagePinService/ListPins"),
    ):
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = world.channels[edge].unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=CALL_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
