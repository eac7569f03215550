"""A backend that is away: told with its reason, waited for, and cleaned up after."""

from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from image_store.blobs.directory import DirectoryBlobStore
from image_store.digest import digest_of_hex
from image_store.errors import StoreUnavailableError
from image_store.intake import UploadLimits
from image_store_disks import raw_disk
from image_store_fakes import MemoryBlobStore
from image_store_world import CALL_S, Clock, World, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("image_store.availability.INTERVAL_S", 0.01)
    monkeypatch.setattr("image_store.availability._AWAY_INTERVAL_S", 0.01)


def health_of(world: World, edge: str = "public") -> Any:
    return health_pb2_grpc.HealthStub(world.channels[edge])


async def test_a_backend_that_is_away_is_told_on_every_edge_with_its_reason(
    tmp_path: Path, clock: Clock, limits: UploadLimits
) -> None:
    store = MemoryBlobStore()
    store.fault = "The bucket is gone: make it."
    async with running(tmp_path, clock, limits, store) as world:
        for edge in world.channels:
            check = health_of(world, edge).Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
            assert (await check).status == NOT_SERVING
            assert dict(await check.trailing_metadata())["health-detail"] == store.fault


async def test_a_backend_that_comes_and_goes_is_followed_and_cleaned_up_after(
    tmp_path: Path, clock: Clock, limits: UploadLimits
) -> None:
    store = MemoryBlobStore()
    async with running(tmp_path, clock, limits, store) as world:
        await world.upload(raw_disk())
        kept = set(store.blobs)
        watch = health_of(world).Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        seen = aiter(watch)
        assert (await anext(seen)).status == SERVING
        store.fault = "away"
        assert (await anext(seen)).status == NOT_SERVING
        store.blobs[digest_of_hex("f" * 64)] = b"left while it was away"
        store.fault = ""
        assert (await anext(seen)).status == SERVING
        assert set(store.blobs) == kept
        watch.cancel()


async def test_a_look_that_fails_by_a_mistake_is_logged_told_and_repeated(
    tmp_path: Path,
    clock: Clock,
    limits: UploadLimits,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryBlobStore()

    async def mistaken() -> None:
        raise ZeroDivisionError("secret")

    async with running(tmp_path, clock, limits, store) as world:
        watch = health_of(world).Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        seen = aiter(watch)
        assert (await anext(seen)).status == SERVING
        with monkeypatch.context() as patch:
            patch.setattr(store, "check", mistaken)
            assert (await anext(seen)).status == NOT_SERVING
        assert "secret" in caplog.text
        assert (await anext(seen)).status == SERVING
        watch.cancel()


async def test_a_directory_that_cannot_be_used_fails_its_check(tmp_path: Path) -> None:
    async with DirectoryBlobStore(tmp_path / "store") as store:
        await store.check()
        (tmp_path / "store" / "uploads").rmdir()
        (tmp_path / "store" / "uploads").touch()
        with pytest.raises(StoreUnavailableError):
            await store.check()
