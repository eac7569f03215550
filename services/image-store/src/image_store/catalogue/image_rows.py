"""Reading and writing the rows that make an image."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, exists, insert, select, update

from image_store.catalogue.schema import BLOBS, IMAGE_LABELS, IMAGES, PINS
from image_store.digest import Digest
from image_store.image import Arch, Blob, DiskFormat, Image, ImageName, ImageState
from image_store.requests import ImageFilter


def find_image(connection: Connection, name: str) -> Image | None:
    """Return the image called `name`, or None."""
    images = _images(connection, _SELECT.where(IMAGES.c.name == name))
    return images[0] if images else None


def find_by_digest(connection: Connection, digest: Digest) -> Image | None:
    """Return the first image, by name, of these uploaded bytes, or None."""
    query = _SELECT.where(IMAGES.c.digest == digest).order_by(IMAGES.c.name).limit(1)
    images = _images(connection, query)
    return images[0] if images else None


def list_images(
    connection: Connection, image_filter: ImageFilter, after: ImageName | None, limit: int
) -> list[Image]:
    """Return up to `limit` images that pass, ordered by name, beginning behind `after`."""
    query = _SELECT.order_by(IMAGES.c.name).limit(limit)
    if after is not None:
        query = query.where(IMAGES.c.name > after)
    if image_filter.states:
        query = query.where(IMAGES.c.state.in_(image_filter.states))
    for key, value in image_filter.labels:
        query = query.where(
            exists().where(
                IMAGE_LABELS.c.image == IMAGES.c.name,
                IMAGE_LABELS.c.key == key,
                IMAGE_LABELS.c.value == value,
            )
        )
    return _images(connection, query)


def save_image(connection: Connection, image: Image) -> None:
    """Write `image` and its blob's row, whether they are there or not."""
    blob = image.blob
    if find_blob(connection, blob.stored_digest) is None:
        connection.execute(
            insert(BLOBS).values(
                stored_digest=blob.stored_digest,
                format=blob.format.value,
                size_bytes=blob.size_bytes,
                virtual_size_bytes=blob.virtual_size_bytes,
            )
        )
    values = {
        "digest": image.digest,
        "stored_digest": blob.stored_digest,
        "state": image.state.value,
        "arch": image.arch.value,
        "create_time": image.create_time,
        "generation": image.generation,
        "revision": image.revision,
    }
    written = connection.execute(update(IMAGES).where(IMAGES.c.name == image.name).values(**values))
    if not written.rowcount:
        connection.execute(insert(IMAGES).values(name=image.name, **values))
    connection.execute(delete(IMAGE_LABELS).where(IMAGE_LABELS.c.image == image.name))
    if image.labels:
        connection.execute(
            insert(IMAGE_LABELS),
            [{"image": image.name, "key": key, "value": value} for key, value in image.labels.items()],
        )


def save_revision(connection: Connection, name: ImageName, revision: int) -> None:
    """Write the position of the last event of `name`."""
    connection.execute(update(IMAGES).where(IMAGES.c.name == name).values(revision=revision))


def remove_image(connection: Connection, name: ImageName) -> None:
    """Remove `name` and its labels."""
    connection.execute(delete(IMAGES).where(IMAGES.c.name == name))


def find_blob(connection: Connection, stored_digest: str) -> Blob | None:
    """Return the blob of `stored_digest`, or None."""
    row = connection.execute(select(BLOBS).where(BLOBS.c.stored_digest == stored_digest)).one_or_none()
    return None if row is None else _blob(row)


def users_of(connection: Connection, names: Sequence[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return, by image name and digest, the sorted names of the instances that were pinned through them."""
    rows = connection.execute(
        select(PINS.c.image, PINS.c.digest, PINS.c.instance_name).where(PINS.c.image.in_(names))
    )
    users: dict[tuple[str, str], set[str]] = {}
    for image, digest, instance_name in rows:
        users.setdefault((image, digest), set()).add(instance_name)
    return {key: tuple(sorted(found)) for key, found in users.items()}


def remove_unused_blob(connection: Connection, stored_digest: Digest) -> bool:
    """Remove the row of a blob that neither a name nor a pin needs; tell whether the bytes may go."""
    used = select(
        exists().where(IMAGES.c.stored_digest == stored_digest)
        | exists().where(PINS.c.stored_digest == stored_digest)
    )
    if connection.execute(used).scalar_one():
        return False
    connection.execute(delete(BLOBS).where(BLOBS.c.stored_digest == stored_digest))
    return True


_SELECT: Select[*tuple[Any, ...]] = select(
    IMAGES, BLOBS.c.format, BLOBS.c.size_bytes, BLOBS.c.virtual_size_bytes
).join(BLOBS, and_(BLOBS.c.stored_digest == IMAGES.c.stored_digest))


def _images(connection: Connection, query: Select[*tuple[Any, ...]]) -> list[Image]:
    rows = connection.execute(query).all()
    names = [row.name for row in rows]
    users = users_of(connection, names)
    labels: dict[str, dict[str, str]] = {name: {} for name in names}
    for image, key, value in connection.execute(
        select(IMAGE_LABELS).where(IMAGE_LABELS.c.image.in_(names)).order_by(IMAGE_LABELS.c.key)
    ):
        labels[image][key] = value
    return [
        Image(
            name=ImageName(row.name),
            digest=Digest(row.digest),
            blob=_blob(row),
            state=ImageState(row.state),
            arch=Arch(row.arch),
            labels=labels[row.name],
            create_time=row.create_time,
            used_by=users.get((row.name, row.digest), ()),
            generation=row.generation,
            revision=row.revision,
        )
        for row in rows
    ]


def _blob(row: Row[*tuple[Any, ...]]) -> Blob:
    return Blob(
        stored_digest=Digest(row.stored_digest),
        format=DiskFormat(row.format),
        size_bytes=row.size_bytes,
        virtual_size_bytes=row.virtual_size_bytes,
    )
