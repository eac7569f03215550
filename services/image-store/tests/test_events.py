"""The outbox: every change once, in order, from any cursor."""

from __future__ import annotations  # the stubs' classes for asyncio exist for the type checker only

import asyncio
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from image_store.intake import UploadLimits
from image_store_disks import raw_disk
from image_store_world import CALL_S, Clock, World, refused, running
from qcontroller.image.v1 import internal_pb2, internal_pb2_grpc
from servicekit.channel import grpc_channel


async def test_each_change_is_an_event_with_the_resource_as_rest_shows_it(world: World) -> None:
    image = (await world.upload(raw_disk(), labels={"a": "b"})).image
    await world.pin("web-1")
    await world.unpin("web-1")
    await world.upload(raw_disk(fill=b"x"))
    await world.delete("disk")
    events = [response.event for response in await world.events(5)]
    assert [event.type for event in events] == [
        "image.created",
        "image.updated",
        "image.updated",
        "image.updated",
        "image.deleted",
    ]
    assert MessageToDict(events[0].resource) == {
        "name": "disk",
        "digest": image.digest,
        "storedDigest": image.stored_digest,
        "format": "raw",
        "state": "READY",
        "sizeBytes": len(raw_disk()),
        "virtualSizeBytes": len(raw_disk()),
        "arch": "x86_64",
        "labels": {"a": "b"},
        "createTime": "2026-01-01T00:00:00Z",
        "usedBy": [],
    }
    used_by = [MessageToDict(event.resource)["usedBy"] for event in events]
    assert used_by == [[], ["web-1"], [], [], []]


async def test_what_changes_nothing_is_no_event(world: World) -> None:
    await world.upload(raw_disk())
    await world.upload(raw_disk())
    await world.unpin("nobody")
    await world.delete("disk")
    assert [response.event.type for response in await world.events(2)] == ["image.created", "image.deleted"]


async def test_a_watcher_resumes_behind_its_cursor_and_goes_on_live(world: World) -> None:
    await world.upload(raw_disk(), "one")
    await world.upload(raw_disk(), "two")
    first, second = await world.events(2)
    live = asyncio.create_task(world.events(2, cursor=first.event.cursor))
    await asyncio.sleep(0)
    await world.upload(raw_disk(), "three")
    replayed, fresh = await live
    assert replayed == second
    assert MessageToDict(fresh.event.resource)["name"] == "three"


@pytest.mark.parametrize("cursor", ["junk", "ä", "MTIz", "Og"])
async def test_what_is_no_cursor_is_refused(world: World, cursor: str) -> None:
    with refused("CURSOR_INVALID", grpc.StatusCode.INVALID_ARGUMENT):
        await world.events(1, cursor=cursor)


async def test_a_cursor_of_another_database_has_expired(
    world: World, clock: Clock, limits: UploadLimits, tmp_path: Path
) -> None:
    await world.upload(raw_disk())
    cursor = (await world.events(1))[0].event.cursor
    (tmp_path / "other").mkdir()
    async with running(tmp_path / "other", clock, limits) as other:
        await other.upload(raw_disk())
        with refused("CURSOR_EXPIRED", grpc.StatusCode.OUT_OF_RANGE):
            await other.events(1, cursor=cursor)


async def test_events_are_kept_for_a_week(world: World) -> None:
    await world.upload(raw_disk(), "old")
    await world.upload(raw_disk(), "older")
    cursor = (await world.events(1))[0].event.cursor
    world.clock.advance(timedelta(days=8))
    await world.upload(raw_disk(), "new")
    with refused("CURSOR_EXPIRED", grpc.StatusCode.OUT_OF_RANGE):
        await world.events(1, cursor=cursor)
    (oldest,) = await world.events(1)
    assert MessageToDict(oldest.event.resource)["name"] == "new"


async def test_a_watcher_is_told_when_the_store_stops(
    tmp_path: Path, clock: Clock, limits: UploadLimits
) -> None:
    async with grpc_channel(f"unix:{tmp_path}/controller.sock") as channel:
        async with running(tmp_path, clock, limits) as world:
            await world.upload(raw_disk())
            stub: internal_pb2_grpc.ImagePinServiceAsyncStub = internal_pb2_grpc.ImagePinServiceStub(channel)
            stream = aiter(stub.WatchImages(internal_pb2.WatchImagesRequest(), timeout=CALL_S))
            assert (await anext(stream)).event.type == "image.created"
        with refused("IMAGE_STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            await anext(stream)
