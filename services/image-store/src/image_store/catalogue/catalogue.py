"""The catalogue's transactions: each is one decision, taken and committed as a whole."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select

from image_store.catalogue.database import Database
from image_store.catalogue.documents import image_of, snapshot_of
from image_store.catalogue.image_rows import (
    find_blob,
    find_by_digest,
    find_image,
    list_images,
    remove_image,
    remove_unused_blob,
    save_image,
    save_revision,
)
from image_store.catalogue.kept_answers import find_answer, has_answer, keep_answer
from image_store.catalogue.outbox import EventType, append_event
from image_store.catalogue.schema import BLOBS, PINS
from image_store.digest import Digest
from image_store.errors import DigestMismatchError, ImageInUseError, ImageNotFoundError
from image_store.image import (
    Blob,
    Image,
    ImageName,
    ImageState,
    InstanceId,
    Pin,
    Preconditions,
)
from image_store.requests import ImageFilter, UploadRequest

_UPLOAD: Final = "upload"
_DELETE: Final = "delete"


@dataclass(frozen=True, slots=True)
class Stored:
    """Outcome of an upload.

    Attributes:
        created: Whether the name is new.
        replayed: Whether this is the answer of an earlier request, and nothing changed now.
        released: The blob that the name pointed to before and may not be needed any more.
    """

    image: Image
    created: bool
    replayed: bool = False
    released: Digest | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """Outcome of a delete; `released` may not be needed any more."""

    replayed: bool
    released: Digest | None = None


class Catalogue:
    """Reads and writes of the database, in the store's own terms."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        """Use `database`; `clock` tells the time in UTC."""
        self._database = database
        self._clock = clock

    async def get(self, name: str) -> Image:
        """Return the image called `name`.

        Raises:
            ImageNotFoundError: There is none.
        """
        return await self._database.read(lambda connection: _existing(connection, name))

    async def find(self, digest: Digest) -> Image | None:
        """Return the first image, by name, of the bytes `digest` as they came; None if there is none."""
        return await self._database.read(lambda connection: find_by_digest(connection, digest))

    async def page(
        self, image_filter: ImageFilter, after: ImageName | None, limit: int
    ) -> tuple[list[Image], bool]:
        """Return up to `limit` images ordered by name from behind `after`, and whether there are more."""
        found = await self._database.read(
            lambda connection: list_images(connection, image_filter, after, limit + 1)
        )
        return found[:limit], len(found) > limit

    async def blob(self, stored_digest: Digest) -> Blob:
        """Return what is known of a blob.

        Raises:
            ImageNotFoundError: There is none.
        """
        blob = await self._database.read(lambda connection: find_blob(connection, stored_digest))
        if blob is None:
            raise ImageNotFoundError(stored_digest)
        return blob

    async def check_upload(self, request: UploadRequest) -> None:
        """Refuse before the bytes come what `store` would refuse after them.

        Raises:
            PreconditionFailedError: And the request is no repeat, which would be answered as the first was.
        """
        name = request.name
        if name is None:
            return

        def check(connection: Connection) -> None:
            if not has_answer(connection, _UPLOAD, request.request_id, self._clock()):
                request.preconditions.check(name, find_image(connection, name))

        await self._database.read(check)

    async def store(self, name: ImageName, request: UploadRequest, digest: Digest, blob: Blob) -> Stored:
        """Point `name` to `blob`, made of the bytes `digest`. The same again changes nothing.

        Raises:
            KeyReusedError: The key came with another request.
            PreconditionFailedError: The image is not in the expected version.
        """
        fingerprint = _fingerprint(name, digest, request.arch, sorted(request.labels.items()))

        def transaction(connection: Connection) -> Stored:
            now = self._clock()
            answer = find_answer(connection, _UPLOAD, request.request_id, fingerprint, now)
            if answer is not None:
                return Stored(image_of(answer["image"]), answer["created"], replayed=True)
            before = find_image(connection, name)
            request.preconditions.check(name, before)
            after = _upsert(connection, before, name, request, digest, blob, now)
            answer = {"image": snapshot_of(after), "created": before is None}
            keep_answer(connection, _UPLOAD, request.request_id, fingerprint, answer, now)
            return Stored(after, before is None, released=before.blob.stored_digest if before else None)

        return await self._database.write(transaction)

    async def delete(self, name: str, request_id: str, preconditions: Preconditions) -> Deleted:
        """Remove `name`.

        Raises:
            KeyReusedError: The key came with another request.
            ImageNotFoundError: There is none.
            PreconditionFailedError: The image is not in the expected version.
            ImageInUseError: Instances were pinned through this name to what it points to.
        """
        fingerprint = _fingerprint(name)

        def transaction(connection: Connection) -> Deleted:
            now = self._clock()
            if find_answer(connection, _DELETE, request_id, fingerprint, now) is not None:
                return Deleted(replayed=True)
            image = _existing(connection, name)
            preconditions.check(image.name, image)
            if image.used_by:
                raise ImageInUseError(name, image.used_by)
            remove_image(connection, image.name)
            append_event(connection, EventType.DELETED, image, now)
            keep_answer(connection, _DELETE, request_id, fingerprint, {}, now)
            return Deleted(replayed=False, released=image.blob.stored_digest)

        return await self._database.write(transaction)

    async def pin(
        self, instance_id: InstanceId, instance_name: str, image_name: str, expected_digest: Digest | None
    ) -> tuple[Pin, Image]:
        """Resolve `image_name` and keep its blob for the instance, in one step.

        An instance that has a pin gets that one back, with the image as it was then.

        Raises:
            ImageNotFoundError: There is no such image.
            DigestMismatchError: It points elsewhere than expected.
        """

        def transaction(connection: Connection) -> tuple[Pin, Image]:
            row = connection.execute(select(PINS).where(PINS.c.instance_id == instance_id)).one_or_none()
            if row is not None:
                return _pin(row), image_of(row.snapshot)
            now = self._clock()
            image = _existing(connection, image_name)
            if expected_digest is not None and image.digest != expected_digest:
                raise DigestMismatchError(expected_digest, image.digest)
            pin = Pin(instance_id, instance_name, image.name, image.digest, image.blob.stored_digest, now)
            users = tuple(sorted({*image.used_by, instance_name}))
            image = _update_users(connection, replace(image, used_by=users), now)
            connection.execute(
                insert(PINS).values(
                    instance_id=pin.instance_id,
                    instance_name=pin.instance_name,
                    image=pin.image_name,
                    digest=pin.digest,
                    stored_digest=pin.stored_digest,
                    create_time=pin.create_time,
                    snapshot=snapshot_of(image),
                )
            )
            return pin, image

        return await self._database.write(transaction)

    async def unpin(self, instance_id: InstanceId) -> Digest | None:
        """Let go of what the instance holds; return the blob, which may not be needed any more."""

        def transaction(connection: Connection) -> Digest | None:
            row = connection.execute(select(PINS).where(PINS.c.instance_id == instance_id)).one_or_none()
            if row is None:
                return None
            pin = _pin(row)
            connection.execute(delete(PINS).where(PINS.c.instance_id == instance_id))
            image = find_image(connection, pin.image_name)
            if image is not None and image.digest == pin.digest:
                _update_users(connection, image, self._clock())
            return pin.stored_digest

        return await self._database.write(transaction)

    async def pins(self) -> list[Pin]:
        """Return all pins, ordered by instance id."""
        return await self._database.read(
            lambda connection: [
                _pin(row) for row in connection.execute(select(PINS).order_by(PINS.c.instance_id))
            ]
        )

    async def forget_blob(self, stored_digest: Digest) -> bool:
        """Remove the row of a blob that nothing needs; tell whether nothing does."""
        return await self._database.write(lambda connection: remove_unused_blob(connection, stored_digest))

    async def known_blobs(self) -> frozenset[Digest]:
        """Return the blobs that have a row."""
        return await self._database.read(
            lambda connection: frozenset(
                Digest(digest) for digest in connection.execute(select(BLOBS.c.stored_digest)).scalars()
            )
        )


def _existing(connection: Connection, name: str) -> Image:
    image = find_image(connection, name)
    if image is None:
        raise ImageNotFoundError(name)
    return image


def _upsert(
    connection: Connection,
    before: Image | None,
    name: ImageName,
    request: UploadRequest,
    digest: Digest,
    blob: Blob,
    now: datetime,
) -> Image:
    if before is None:
        image = Image(
            name=name,
            digest=digest,
            blob=blob,
            state=ImageState.READY,
            arch=request.arch,
            labels=request.labels,
            create_time=now,
            used_by=(),
            generation=0,
            revision=0,
        )
    else:
        image = replace(before, digest=digest, blob=blob, arch=request.arch, labels=request.labels)
        if image == before:
            return before
    # Saved first, read back: who uses the image depends on what its name points to now.
    save_image(connection, image)
    image = _existing(connection, name)
    kind = EventType.CREATED if before is None else EventType.UPDATED
    seq = append_event(connection, kind, image, now)
    image = replace(image, generation=seq, revision=seq)
    save_image(connection, image)
    return image


def _update_users(connection: Connection, image: Image, now: datetime) -> Image:
    seq = append_event(connection, EventType.UPDATED, image, now)
    save_revision(connection, image.name, seq)
    return replace(image, revision=seq)


def _pin(row: Row[*tuple[Any, ...]]) -> Pin:
    return Pin(
        instance_id=InstanceId(row.instance_id),
        instance_name=row.instance_name,
        image_name=ImageName(row.image),
        digest=Digest(row.digest),
        stored_digest=Digest(row.stored_digest),
        create_time=row.create_time,
    )


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
