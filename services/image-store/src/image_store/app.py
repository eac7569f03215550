"""Composition root: puts the parts together and serves each edge at its own addresses."""

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry
from qcontroller.image.v1 import fetch_pb2_grpc, image_pb2_grpc, internal_pb2_grpc
from qcontroller.settings.v1.settings_pb2 import ImageStoreSettings
from servicekit.failpoints import fail_points_of
from servicekit.server import Register, grpc_server

from image_store.availability import Availability
from image_store.blobs.directory import DirectoryBlobStore
from image_store.blobs.port import BlobStore
from image_store.blobs.s3.address import S3Address
from image_store.blobs.s3.store import S3BlobStore
from image_store.catalogue.catalogue import Catalogue
from image_store.catalogue.database import Database
from image_store.catalogue.outbox import epoch_of
from image_store.collector import Collector
from image_store.feed import Feed
from image_store.fetching.download import Downloads, Resolver, system_resolver
from image_store.fetching.exchange import Patience
from image_store.fetching.fetches import Fetches
from image_store.images import Images
from image_store.last_steps import LastSteps
from image_store.metrics import ReadMetrics, UploadMetrics
from image_store.problems import translate
from image_store.servicers.blob_servicer import BlobServicer
from image_store.servicers.fetch_servicer import FetchServicer
from image_store.servicers.image_servicer import ImageServicer
from image_store.servicers.pin_servicer import PinServicer
from image_store.settings import Settings, parse_settings
from image_store.uploads import Uploads


@asynccontextmanager
async def application(message: ImageStoreSettings, registry: CollectorRegistry) -> AsyncIterator[None]:
    """Run the image store with the backend of the settings.

    A backend that is away at the start is waited for: the store is alive then, and not ready.

    Raises:
        SettingsError: The settings cannot be used.
        StoreUnavailableError: Another process has the database, or it cannot be opened.
        AddressInUseError: An address is taken.
    """
    settings = parse_settings(message)
    async with (
        # The database's lock comes first: what follows removes the leftovers of an earlier process.
        Database(settings.database) as database,
        _backend(settings, await database.read(epoch_of)) as blobs,
        serve(settings, database, blobs, registry, clock=lambda: datetime.now(UTC)),
    ):
        yield


def _backend(settings: Settings, owner: str) -> DirectoryBlobStore | S3BlobStore:
    match settings.backend:
        case Path() as directory:
            return DirectoryBlobStore(directory)
        case S3Address() as address:
            return S3BlobStore(address, settings.limits.max_upload_bytes, owner)


@asynccontextmanager
async def serve(
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    registry: CollectorRegistry,
    *,
    clock: Callable[[], datetime],
    resolver: Resolver = system_resolver,
    patience: Patience | None = None,
) -> AsyncIterator[None]:
    """Clean up, then serve `blobs` and `database` until the context is left."""
    catalogue = Catalogue(database, clock)
    collector = Collector(blobs, catalogue)
    feed = Feed(database)
    read_metrics = ReadMetrics(registry)
    availability = Availability(blobs, collector)
    fail_points = fail_points_of(os.environ)
    await availability.look()
    async with AsyncExitStack() as stack:
        last_steps = await stack.enter_async_context(LastSteps())
        images = Images(blobs, catalogue, collector, last_steps)
        uploads = Uploads(
            blobs,
            catalogue,
            collector,
            last_steps,
            settings.limits,
            UploadMetrics(registry),
            fail_points,
        )
        downloads = Downloads(
            settings.fetch_policy, ca_file=settings.fetch_ca_file, patience=patience, resolver=resolver
        )
        fetches = Fetches(downloads, uploads, images, settings.limits, fail_points)
        image_servicer = ImageServicer(images, uploads, read_metrics)
        pin_servicer = PinServicer(images, feed)
        blob_servicer = BlobServicer(images, read_metrics)
        fetch_servicer = FetchServicer(fetches, images)
        public = (
            "qcontroller.image.v1.ImageService",
            lambda server: image_pb2_grpc.add_ImageServiceServicer_to_server(image_servicer, server),
        )
        pins = (
            "qcontroller.image.v1.ImagePinService",
            lambda server: internal_pb2_grpc.add_ImagePinServiceServicer_to_server(pin_servicer, server),
        )
        fetch = (
            "qcontroller.image.v1.ImageFetchService",
            lambda server: fetch_pb2_grpc.add_ImageFetchServiceServicer_to_server(fetch_servicer, server),
        )
        blob = (
            "qcontroller.image.v1.BlobService",
            lambda server: internal_pb2_grpc.add_BlobServiceServicer_to_server(blob_servicer, server),
        )
        edges: tuple[tuple[tuple[str, ...], Iterable[tuple[str, Register]]], ...] = (
            (settings.public, (public,)),
            (settings.controller, (public, pins, fetch)),
            (settings.runner, (blob,)),
        )
        healths = [
            await stack.enter_async_context(
                grpc_server(
                    listen,
                    services=services,
                    translate=translate,
                    registry=registry,
                    serving=False,
                    fail_point=fail_points_of(os.environ),
                )
            )
            for listen, services in edges
            if listen
        ]
        await stack.enter_async_context(availability.told_to(healths))
        # Left first: watchers end before their server is asked to stop.
        stack.callback(feed.close)
        yield
