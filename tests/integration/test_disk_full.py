"""A full disk is told as such, leaves nothing half-made, and is over when there is room again. Needs root."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, document
from framework.disks import raw_disk
from framework.stack import running_stack

pytestmark = pytest.mark.native("the whole state lies on a small file system of the test's own")

SIZE_MIB = 160


@pytest.fixture(scope="module")
def small_cloud() -> Iterator[Cloud]:
    """A stack whose whole state lies on a small file system."""
    with running_stack("qc-full-", state_mib=SIZE_MIB) as stack, BlockingApiClient(stack.base_url) as api:
        cloud = Cloud(stack, api)
        cloud.upload("tiny", guests.tiny())
        yield cloud


def test_an_upload_that_does_not_fit_leaves_nothing(small_cloud: Cloud) -> None:
    cloud = small_cloud
    response = cloud.api.request(
        "PUT",
        "/v1/images/too-large",
        content=raw_disk(SIZE_MIB + 40),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert response.status_code == 503, response.text
    assert document(response)["reason"] == "DISK_FULL"
    assert int(response.headers["Retry-After"]) > 0
    assert list((cloud.stack.layout.state / "image-store" / "uploads").glob("*")) == []
    assert cloud.api.request("GET", "/v1/images/too-large").status_code == 404


def test_a_launch_without_room_for_its_image_leaves_nothing_and_works_later(small_cloud: Cloud) -> None:
    cloud = small_cloud
    filler = cloud.stack.layout.state / "filler"
    with filler.open("wb") as file:
        fill(file.fileno(), filler, leave_mib=12)
    body = {"name": "no-room", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}
    response = cloud.api.request("POST", "/v1/instances", json=body, headers={"Prefer": "wait=60"})
    assert response.status_code == 503, response.text
    assert document(response)["reason"] == "DISK_FULL"
    assert cloud.api.request("GET", "/v1/instances/no-room").status_code == 404
    assert list((cloud.stack.layout.state / "runner" / "machines").glob("*")) == []
    filler.unlink()
    cloud.delete(cloud.launch_ready("no-room")["name"])


def fill(descriptor: int, path: Path, leave_mib: int) -> None:
    """Reserve all but `leave_mib` MiB of the file system."""
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    os.posix_fallocate(descriptor, 0, free - leave_mib * 2**20)
