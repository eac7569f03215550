"""Memory does not grow with the size of an upload."""

from collections.abc import Iterator
from pathlib import Path

from image_store.intake import UploadLimits
from image_store_disks import raw_disk
from image_store_world import CALL_S, MIB, Clock, World, running
from qcontroller.image.v1 import image_pb2

ALLOWED_MIB = 64


def disk(mib: int) -> Iterator[image_pb2.UploadImageRequest]:
    yield image_pb2.UploadImageRequest(upload=image_pb2.ImageUpload(name="disk", content_length=mib * MIB))
    yield image_pb2.UploadImageRequest(chunk=raw_disk(MIB))
    block = bytes(MIB)
    for _ in range(mib - 1):
        yield image_pb2.UploadImageRequest(chunk=block)


def resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 // MIB


async def upload(world: World, mib: int) -> None:
    await world.images.UploadImage(disk(mib), timeout=3 * CALL_S)


async def test_a_large_upload_takes_no_more_memory_than_a_small_one(tmp_path: Path, clock: Clock) -> None:
    async with running(tmp_path, clock, UploadLimits(512 * MIB, 512 * MIB)) as world:
        await upload(world, 8)
        before = resident_mib()
        await upload(world, 300)
        assert resident_mib() - before < ALLOWED_MIB
