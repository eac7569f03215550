"""A MinIO for a test, and looking into its buckets from outside of the store."""

import os
from pathlib import Path
from typing import Any

import pytest
from image_store.blobs.s3.address import S3Address, S3Limits
from minio import Minio
from qcstack.minio import MinioMissingError, MinioServer


def server(directory: Path, data: Path | None = None) -> MinioServer:
    """Return a server; skip the test where there is none, but not in CI."""
    try:
        return MinioServer(directory, data)
    except MinioMissingError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))


def address_of(server: MinioServer, bucket: str = "images", **fields: Any) -> S3Address:
    """Return the address of a bucket of `server`."""
    return S3Address(
        endpoint=server.endpoint,
        bucket=bucket,
        access_key_file=fields.pop("access_key_file", server.access_key_file),
        secret_key_file=fields.pop("secret_key_file", server.secret_key_file),
        limits=S3Limits(connect_s=2.0, read_s=fields.pop("read_s", 15.0), retries=1),
        **fields,
    )


def client_of(address: S3Address) -> Minio:
    """Return a client of our own, as the owner of the server has."""
    return Minio(
        address.endpoint,
        access_key=address.access_key_file.read_text(encoding="ascii").strip(),
        secret_key=address.secret_key_file.read_text(encoding="ascii").strip(),
        region=address.region,
        secure=False,
    )


def keys_in(address: S3Address) -> list[str]:
    """Return the keys of all objects in the bucket but the owner's word."""
    found = client_of(address).list_objects(address.bucket, recursive=True)
    return sorted(str(item.object_name) for item in found if item.object_name != "owner")


def pending_in(address: S3Address) -> list[str]:
    """Return the keys of all uploads in parts that are neither completed nor aborted."""
    found = client_of(address)._list_multipart_uploads(address.bucket, prefix="")
    return [upload.object_name for upload in found.uploads]


def assert_nothing_is_pending(address: S3Address) -> None:
    assert pending_in(address) == []
    assert [key for key in keys_in(address) if key.startswith("uploads/")] == []
