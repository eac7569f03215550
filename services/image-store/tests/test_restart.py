"""What a start finds and mends, and what a second process must not touch."""

from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from image_store.app import application
from image_store.catalogue.database import Database
from image_store.errors import StoreUnavailableError
from image_store.intake import UploadLimits
from image_store_disks import raw_disk
from image_store_world import CALL_S, Clock, running
from prometheus_client import CollectorRegistry
from qcontroller.settings.v1.settings_pb2 import DirectoryBackend, ImageStoreSettings
from servicekit.channel import grpc_channel
from servicekit.settings import SettingsError


async def test_images_pins_and_keys_outlive_a_restart(
    tmp_path: Path, clock: Clock, limits: UploadLimits
) -> None:
    async with running(tmp_path, clock, limits) as world:
        await world.upload(raw_disk(), request_id="key")
        await world.pin("web-1")
        before = await world.get("disk")
    async with running(tmp_path, clock, limits) as world:
        assert await world.get("disk") == before
        assert (await world.upload(raw_disk(), request_id="key")).replayed
        assert len(await world.read_blob(before.stored_digest)) > 1


async def test_a_start_removes_half_uploads_and_blobs_that_nothing_needs(
    tmp_path: Path, clock: Clock, limits: UploadLimits
) -> None:
    async with running(tmp_path, clock, limits) as world:
        await world.upload(raw_disk())
        kept = world.blob_files()
    (tmp_path / "uploads" / "half").write_bytes(b"half")
    orphan = tmp_path / "blobs" / "sha256" / "ff" / ("f" * 64)
    orphan.parent.mkdir()
    orphan.write_bytes(b"orphan")
    async with running(tmp_path, clock, limits) as world:
        assert world.blob_files() == kept
        assert world.upload_files() == []


async def test_a_second_process_is_kept_off_the_database(tmp_path: Path) -> None:
    async with Database(tmp_path / "store.db"):
        with pytest.raises(StoreUnavailableError, match="Another process"):
            async with Database(tmp_path / "store.db"):
                pass


async def test_the_settings_of_the_native_stack_start_the_store(tmp_path: Path) -> None:
    settings = ImageStoreSettings(
        listen=[f"unix:{tmp_path}/public.sock"],
        database_url=f"sqlite:///{tmp_path}/image-store.db",
        directory=DirectoryBackend(path=str(tmp_path)),
    )
    async with grpc_channel(settings.listen[0]) as channel, application(settings, CollectorRegistry()):
        health: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="qcontroller.image.v1.ImageService")
        answer = await health.Check(request, timeout=CALL_S, wait_for_ready=True)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"directory": DirectoryBackend()}, "directory"),
        ({"database_url": ""}, "databaseUrl"),
        ({"database_url": "postgresql://host"}, "databaseUrl"),
        ({"database_url": "mysql://host/db"}, "databaseUrl"),
        ({"max_upload": "many"}, "maxUpload"),
        ({"max_virtual_size": "0"}, "maxVirtualSize"),
    ],
)
async def test_settings_that_cannot_be_used_are_named(
    tmp_path: Path, change: dict[str, object], fault: str
) -> None:
    fields: dict[str, object] = {
        "database_url": f"sqlite:///{tmp_path}/image-store.db",
        "directory": DirectoryBackend(path=str(tmp_path)),
    }
    settings = ImageStoreSettings(**(fields | change))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=fault):
        async with application(settings, CollectorRegistry()):
            pass
