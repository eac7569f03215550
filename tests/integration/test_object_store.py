"""A stack whose images are in a real MinIO, which dies in the middle and comes back: nothing else does."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, Document, document
from framework.disks import raw_disk
from framework.stack import eventually, running_stack
from qcstack.minio import MinioMissingError, MinioServer

pytestmark = [
    pytest.mark.minio,
    pytest.mark.native("in containers every test has its images in MinIO, and tests/compose restarts it"),
]

OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(slots=True)
class ObjectCloud:
    """A stack and the MinIO behind it."""

    cloud: Cloud
    server: MinioServer


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectCloud]:
    """A stack that keeps its images in a MinIO of its own."""
    try:
        server = MinioServer(tmp_path_factory.mktemp("minio"))
    except MinioMissingError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))
    with server, pytest.MonkeyPatch.context() as patch:
        # The stack's own file names a directory; variables go over it.
        patch.setenv("QC_IMAGE_STORE_DIRECTORY__PATH", "")
        patch.setenv("QC_IMAGE_STORE_S3__ENDPOINT", server.endpoint)
        patch.setenv("QC_IMAGE_STORE_S3__BUCKET", "images")
        patch.setenv("QC_IMAGE_STORE_S3__ACCESS_KEY_FILE", str(server.access_key_file))
        patch.setenv("QC_IMAGE_STORE_S3__SECRET_KEY_FILE", str(server.secret_key_file))
        with running_stack("qc-s3-") as stack, BlockingApiClient(stack.base_url) as api:
            yield ObjectCloud(Cloud(stack, api), server)


def test_a_machine_boots_from_an_image_in_the_bucket(objects: ObjectCloud) -> None:
    cloud = objects.cloud
    content = guests.tiny().read_bytes()
    cloud.upload("tiny", guests.tiny())
    assert cloud.api.request("GET", "/v1/images/tiny/content").content == content
    cloud.delete(cloud.launch_ready(nics=[])["name"])


def test_a_store_that_dies_in_the_middle_of_an_upload_is_a_503_and_is_forgiven(objects: ObjectCloud) -> None:
    cloud, server = objects.cloud, objects.server
    starts = cloud.stack.starts("image-store")

    def interrupted() -> Iterator[bytes]:
        for number, chunk in enumerate(raw_disk(64)):
            if number == 20:
                server.kill()
            yield chunk

    try:
        refused = cloud.api.request("PUT", "/v1/images/halved", content=interrupted(), headers=OCTETS)
        assert refused.status_code == 503, refused.text
        assert document(refused)["reason"] == "IMAGE_STORE_UNAVAILABLE"
        assert int(refused.headers["Retry-After"]) > 0
        detail = eventually(lambda: store_fault(cloud), "readyz says that the image store is down")
        assert "The object store cannot be used: it cannot be reached." in detail
    finally:
        server.start()
    cloud.stack.wait_ready()
    again = cloud.api.request("PUT", "/v1/images/halved", content=raw_disk(64), headers=OCTETS)
    assert again.status_code == 201, again.text
    assert cloud.api.request("DELETE", "/v1/images/halved").status_code == 204
    assert cloud.stack.starts("image-store") == starts


def store_fault(cloud: Cloud) -> str | None:
    """Return what /readyz says of an image store that is down."""
    answer: Document = document(cloud.api.request("GET", "/readyz"))
    entry = next(entry for entry in answer["dependencies"] if entry["name"] == "image-store")
    return str(entry["detail"]) if entry["status"] == "DOWN" else None


def test_no_directory_is_used_beside_the_bucket(objects: ObjectCloud) -> None:
    state: Path = objects.cloud.stack.layout.state / "image-store"
    assert sorted(path.name for path in state.iterdir() if path.is_dir()) == []
