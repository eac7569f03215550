"""An image store over real sockets in a temporary directory, and a client of each of its edges."""

from __future__ import annotations  # the stubs' classes for asyncio exist for the type checker only

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from image_store.app import serve
from image_store.blobs.directory import DirectoryBlobStore
from image_store.blobs.port import BlobStore
from image_store.catalogue.database import Database
from image_store.fetching.address_policy import AddressPolicy
from image_store.fetching.download import Resolver, system_resolver
from image_store.fetching.exchange import Patience
from image_store.intake import UploadLimits
from image_store.settings import Settings
from prometheus_client import CollectorRegistry
from qcontroller.image.v1 import (
    fetch_pb2,
    fetch_pb2_grpc,
    image_pb2,
    image_pb2_grpc,
    internal_pb2,
    internal_pb2_grpc,
)
from servicekit.channel import grpc_channel
from servicekit.rpc_errors import RpcProblem, decode
from sqlalchemy import URL

CALL_S = 20.0
MIB = 2**20


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = field(default_factory=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, span: timedelta) -> None:
        self.now += span


@dataclass
class World:
    """A running store: its files, its clock, its edges."""

    directory: Path
    clock: Clock
    registry: CollectorRegistry
    images: image_pb2_grpc.ImageServiceAsyncStub
    controller_images: image_pb2_grpc.ImageServiceAsyncStub
    pins: internal_pb2_grpc.ImagePinServiceAsyncStub
    blobs: internal_pb2_grpc.BlobServiceAsyncStub
    fetches: fetch_pb2_grpc.ImageFetchServiceAsyncStub
    channels: dict[str, grpc.aio.Channel]

    async def fetch(self, url: str, digest: str, name: str = "disk", **fields: Any) -> list[tuple[int, int]]:
        """Fetch an image; return what was told of the progress."""
        request = fetch_pb2.FetchImageRequest(name=name, url=url, expected_digest=digest, **fields)
        told = [message async for message in self.fetches.FetchImage(request, timeout=CALL_S)]
        assert [message.WhichOneof("part") for message in told[-1:]] == ["image"]
        return [(message.progress.done_bytes, message.progress.total_bytes) for message in told[:-1]]

    async def upload(
        self, content: bytes, name: str = "disk", **fields: Any
    ) -> image_pb2.UploadImageResponse:
        """Upload `content` in one go."""
        return await self.images.UploadImage(messages(content, name, **fields), timeout=CALL_S)

    async def get(self, name: str) -> image_pb2.Image:
        answer = await self.images.GetImage(image_pb2.GetImageRequest(name=name), timeout=CALL_S)
        return answer.image

    async def pin(self, instance: str, image: str = "disk", **fields: Any) -> internal_pb2.PinImageResponse:
        request = internal_pb2.PinImageRequest(
            instance_id=f"id-{instance}",
            instance_name=instance,
            image_name=image,
            **fields,
        )
        return await self.pins.PinImage(request, timeout=CALL_S)

    async def unpin(self, instance: str) -> None:
        await self.pins.UnpinImage(
            internal_pb2.UnpinImageRequest(instance_id=f"id-{instance}"), timeout=CALL_S
        )

    async def delete(self, name: str, **fields: str) -> image_pb2.DeleteImageResponse:
        return await self.images.DeleteImage(
            image_pb2.DeleteImageRequest(name=name, **fields), timeout=CALL_S
        )

    async def read_blob(self, digest: str, offset: int = 0) -> list[internal_pb2.ReadBlobResponse]:
        request = internal_pb2.ReadBlobRequest(stored_digest=digest, offset=offset)
        return [message async for message in self.blobs.ReadBlob(request, timeout=CALL_S)]

    async def events(self, count: int, cursor: str = "") -> list[internal_pb2.WatchImagesResponse]:
        """Return the next `count` events behind `cursor`."""
        call = self.pins.WatchImages(internal_pb2.WatchImagesRequest(cursor=cursor), timeout=CALL_S)
        found = []
        async for event in call:
            found.append(event)
            if len(found) == count:
                break
        call.cancel()
        return found

    def blob_files(self) -> set[str]:
        return {path.name for path in (self.directory / "blobs").rglob("*") if path.is_file()}

    def upload_files(self) -> list[Path]:
        return list((self.directory / "uploads").iterdir())


def messages(
    content: bytes, name: str = "disk", *, end: bool = True, **fields: Any
) -> Iterator[image_pb2.UploadImageRequest]:
    """Yield the messages of an upload, `end` among them."""
    upload = image_pb2.ImageUpload(name=name, **fields)
    yield image_pb2.UploadImageRequest(upload=upload)
    for begin in range(0, len(content), MIB):
        yield image_pb2.UploadImageRequest(chunk=content[begin : begin + MIB])
    if end:
        yield image_pb2.UploadImageRequest(end=image_pb2.UploadEnd(total_bytes=len(content)))


@asynccontextmanager
async def running(
    directory: Path,
    clock: Clock,
    limits: UploadLimits,
    blobs: BlobStore | None = None,
    target: Path | URL | None = None,
    *,
    policy: AddressPolicy | None = None,
    ca_file: Path | None = None,
    resolver: Resolver = system_resolver,
    patience: Patience | None = None,
) -> AsyncIterator[World]:
    """Run a store whose files are in `directory`, and its database too unless `target` is another."""
    edges = {edge: f"unix:{directory}/{edge}.sock" for edge in ("public", "controller", "runner")}
    settings = Settings(
        public=(edges["public"],),
        controller=(edges["controller"],),
        runner=(edges["runner"],),
        database=target or directory / "image-store.db",
        backend=directory,
        limits=limits,
        fetch_policy=policy or AddressPolicy(),
        fetch_ca_file=ca_file,
    )
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(settings.database))
        if blobs is None:
            blobs = await stack.enter_async_context(DirectoryBlobStore(directory))
        registry = CollectorRegistry()
        await stack.enter_async_context(
            serve(settings, database, blobs, registry, clock=clock, resolver=resolver, patience=patience)
        )
        channels = {
            edge: await stack.enter_async_context(grpc_channel(target)) for edge, target in edges.items()
        }
        yield World(
            directory=directory,
            clock=clock,
            registry=registry,
            images=image_pb2_grpc.ImageServiceStub(channels["public"]),
            controller_images=image_pb2_grpc.ImageServiceStub(channels["controller"]),
            pins=internal_pb2_grpc.ImagePinServiceStub(channels["controller"]),
            blobs=internal_pb2_grpc.BlobServiceStub(channels["runner"]),
            fetches=fetch_pb2_grpc.ImageFetchServiceStub(channels["controller"]),
            channels=channels,
        )


class refused:  # noqa: N801 - reads as a sentence: with refused("IMAGE_IN_USE") as problem
    """Expects a call to be refused with a reason; `problem` is what was said."""

    def __init__(self, reason: str, code: grpc.StatusCode) -> None:
        self._reason = reason
        self._code = code
        self.problem = RpcProblem(code, reason, "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> bool:
        if exc is None:
            pytest.fail(f"not refused with {self._reason}")
        if not isinstance(exc, grpc.aio.AioRpcError):
            return False
        self.problem = decode(exc)
        assert (self.problem.reason, self.problem.code) == (self._reason, self._code), self.problem
        return True

    @property
    def pointers(self) -> list[str]:
        return [violation.pointer for violation in self.problem.violations]
