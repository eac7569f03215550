"""Images as JSON: the resource that REST shows, and the snapshot that stored answers are made from again."""

from datetime import UTC, datetime
from typing import Any

from image_store.digest import Digest
from image_store.image import Arch, Blob, DiskFormat, Image, ImageName, ImageState

Document = dict[str, Any]


def resource_of(image: Image) -> Document:
    """Return `image` as REST shows it."""
    return {
        "name": image.name,
        "digest": image.digest,
        "storedDigest": image.blob.stored_digest,
        "format": image.blob.format.value,
        "state": image.state.value,
        "sizeBytes": image.blob.size_bytes,
        "virtualSizeBytes": image.blob.virtual_size_bytes,
        "arch": image.arch.value,
        "labels": dict(image.labels),
        "createTime": image.create_time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "usedBy": list(image.used_by),
    }


def snapshot_of(image: Image) -> Document:
    """Return all of `image`."""
    return resource_of(image) | {"generation": image.generation, "revision": image.revision}


def image_of(snapshot: Document) -> Image:
    """Return the image that `snapshot_of` was given."""
    return Image(
        name=ImageName(snapshot["name"]),
        digest=Digest(snapshot["digest"]),
        blob=Blob(
            stored_digest=Digest(snapshot["storedDigest"]),
            format=DiskFormat(snapshot["format"]),
            size_bytes=snapshot["sizeBytes"],
            virtual_size_bytes=snapshot["virtualSizeBytes"],
        ),
        state=ImageState(snapshot["state"]),
        arch=Arch(snapshot["arch"]),
        labels=snapshot["labels"],
        create_time=datetime.fromisoformat(snapshot["createTime"]),
        used_by=tuple(snapshot["usedBy"]),
        generation=snapshot["generation"],
        revision=snapshot["revision"],
    )
