"""Importing images from URLs: everything that makes it impossible is found before an operation is filed."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from servicekit.telemetry import current_traceparent
from sqlalchemy import Connection

from controller.domain.fault import Fault
from controller.domain.image_source import FetchWish, shown_url
from controller.errors import ImageNotFound, PeerRefused, RequestInvalid
from controller.instances.submitting import Mutated, Options, Submitting
from controller.operations import AlreadyThere, Submission
from controller.ports import ImageStore, StoreImage
from controller.records import image_sources

IMPORT_IMAGE: Final = "import-image"
_DEFAULT_ARCH: Final = "x86_64"
# Where the client gave what the store calls by these pointers.
_POINTERS: Final = {"/expectedDigest": "/digest"}


class ImageImporting:
    """Accepts imports."""

    def __init__(self, store: ImageStore, submitting: Submitting, deadline_s: float) -> None:
        self._store = store
        self._submitting = submitting
        self._deadline_s = deadline_s

    async def take(self, wish: FetchWish, options: Options) -> Mutated:
        """File an import; one that is there already is a no-op success.

        Raises:
            RequestInvalid: With all faults.
            PeerError: The store is away, or does not fetch from there.
            SubmitRefused: By the engine.
        """
        return await self._submitting.once(options, lambda: self._take(wish, options))

    async def _take(self, wish: FetchWish, options: Options) -> Mutated:
        try:
            await self._store.check_fetch(wish)
        except PeerRefused as exc:
            raise faults_told(exc, _POINTERS) from exc
        spec = {
            "name": wish.name,
            "digest": wish.digest,
            "arch": wish.arch or _DEFAULT_ARCH,
            "labels": dict(wish.labels),
            "source": shown_url(wish.url),
        }
        try:
            there = holds(await self._store.find(wish.name), spec)
        except ImageNotFound:
            there = False
        subject = subject_of(wish.name)
        traceparent = current_traceparent()

        def prepare(conn: Connection) -> Submission | AlreadyThere:
            del conn
            if there:
                return AlreadyThere({"image": wish.name})
            return Submission(
                kind=IMPORT_IMAGE,
                subject=subject,
                spec=spec,
                deadline_s=self._deadline_s,
                traceparent=traceparent,
                accepted=lambda conn, _operation: image_sources.keep(conn, subject, wish.url),
            )

        return await self._submitting.submit(prepare, options)


def subject_of(name: str) -> str:
    """Return what an import of this name works on; a name may be longer than a subject."""
    return "image:" + hashlib.sha256(name.encode()).hexdigest()[:32]


def holds(found: StoreImage, spec: Mapping[str, Any]) -> bool:
    """Tell whether an image is what an import asks for."""
    return (
        found.image.digest == spec["digest"]
        and found.arch == spec["arch"]
        and dict(found.labels) == dict(spec["labels"])
    )


def faults_told(
    error: PeerRefused, pointers: Mapping[str, str], others: Sequence[Fault] = ()
) -> PeerRefused | RequestInvalid:
    """Return the store's refusal in the terms of the request that was made here."""
    if error.refusal.reason != "FIELD_INVALID":
        return error
    told = [Fault(pointers.get(fault.pointer, fault.pointer), fault.detail) for fault in error.refusal.faults]
    return RequestInvalid([*others, *told])
