"""Composition root: puts the parts together and serves the public gRPC services."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry
from qcontroller.controller.v1 import (
    host_pb2_grpc,
    image_import_pb2_grpc,
    instance_pb2_grpc,
    operation_pb2_grpc,
)
from qcontroller.settings.v1.settings_pb2 import ControllerSettings
from servicekit.channel import grpc_channel
from servicekit.failpoints import fail_points_of
from servicekit.server import Register, grpc_server
from sqlalchemy import select

from controller.adapters.image_store_client import ImageStoreClient
from controller.adapters.runner_client import RunnerClient
from controller.database import Database
from controller.instances.bundles import Bundles
from controller.instances.capacity import Capacity
from controller.instances.changes import Changes
from controller.instances.console_reading import ConsoleReading
from controller.instances.consoles import Consoles
from controller.instances.deadlines import Deadlines
from controller.instances.evidence import Evidence
from controller.instances.fences import Fences
from controller.instances.fleet import Fleet
from controller.instances.guests import Guests
from controller.instances.image_feed import ImageFeed
from controller.instances.image_imports import ImageImporting
from controller.instances.image_sources import ImageSources
from controller.instances.importing import Importing
from controller.instances.launching import Launching
from controller.instances.nodes import Nodes
from controller.instances.observations import Observations
from controller.instances.orphans import Orphans
from controller.instances.queries import Queries
from controller.instances.readiness_timer import ReadinessTimer
from controller.instances.reconciler import Reconciler
from controller.instances.runner_watch import RunnerWatch
from controller.instances.sealing import bring_in_step
from controller.instances.submitting import Submitting
from controller.instances.updating import Updating
from controller.instances.verbs import Verbs
from controller.operations import (
    Clock,
    DatabaseClock,
    Engine,
    EngineSettings,
    Outbox,
    cluster_id,
    wall_clock_of,
)
from controller.operations.failpoints import FailPoints
from controller.plans.kinds import build_plans
from controller.plans.workbench import Workbench
from controller.policies.enforcer import Enforcer
from controller.policies.filing import Filing, FilingSettings
from controller.policies.leases import Leases
from controller.ports import ImageStore, Runner
from controller.problems import translate
from controller.records import capacity_rows
from controller.records.keyring import Keyring, read_keyring
from controller.records.schema import instances
from controller.records.sealed_rows import KEYRING
from controller.servicers.event_servicer import EventServicer
from controller.servicers.image_import_servicer import ImageImportServicer
from controller.servicers.instance_servicer import InstanceParts, InstanceServicer
from controller.servicers.node_servicer import NodeServicer
from controller.servicers.operation_servicer import OperationServicer
from controller.settings import Settings, parse_settings


@asynccontextmanager
async def application(
    message: ControllerSettings, registry: CollectorRegistry
) -> AsyncIterator["asyncio.Future[None]"]:
    """Run the controller; what it yields ends only if a part of it has failed.

    Raises:
        SettingsError: The settings cannot be used.
        DatabaseError: The database cannot be opened, or another process holds it.
        AddressInUseError: An address is taken.
    """
    settings = parse_settings(message)
    async with AsyncExitStack() as stack:
        keys = Keyring()
        if settings.secret_key_file is not None:
            keys = await asyncio.to_thread(read_keyring, settings.secret_key_file)
        database = await stack.enter_async_context(Database(settings.database, {KEYRING: keys}))
        await bring_in_step(database, keys, _fail_points())
        store = ImageStoreClient(await stack.enter_async_context(grpc_channel(settings.image_store)))
        runners = [
            RunnerClient(node, await stack.enter_async_context(grpc_channel(target)))
            for node, target in settings.runners.items()
        ]
        work = await stack.enter_async_context(serve(settings, database, store, runners, registry))
        yield work


@asynccontextmanager
async def serve(
    settings: Settings,
    database: Database,
    store: ImageStore,
    runners: Sequence[Runner],
    registry: CollectorRegistry,
    clock: Clock | None = None,
) -> AsyncIterator["asyncio.Future[None]"]:
    """Put the parts together on top of a database and peers, and serve until the context is left."""
    clock = clock or (DatabaseClock() if database.shared else wall_clock_of(os.environ))
    rules = settings.restart_rules
    identity = await database.read(cluster_id)
    fleet = Fleet(runners, clock)
    await database.write(lambda conn: capacity_rows.know_nodes(conn, [runner.node for runner in runners]))
    changes = Changes(fleet, clock, rules)
    outbox = Outbox(clock)
    capacity = Capacity(database, fleet, settings.overcommit)
    observations = Observations(database, fleet, capacity, changes, outbox)
    evidence = Evidence(database, fleet)
    sources = ImageSources(database, capacity, changes)
    bench = Workbench(database, fleet, store, changes, observations, evidence, sources, identity)
    engine = Engine(
        database,
        build_plans(bench, settings.operation_deadline_s),
        settings=EngineSettings(
            slots=settings.operation_slots,
            retention=replace(settings.retention, living=select(instances.c.id)),
        ),
        clock=clock,
        fail_points=_fail_points(),
        registry=registry,
    )
    submitting = Submitting(database, engine)
    queries = Queries(database, fleet, engine.feed, clock)
    orphans = Orphans(database, fleet, clock, identity)
    images = ImageFeed(database, store, outbox, clock)
    times = FilingSettings(settings.stop_timeout_s, settings.operation_deadline_s)
    enforcer = Enforcer(
        database,
        Filing(database, engine, fleet, changes, times),
        clock,
        rules,
        purge_after_s=settings.lease_delete_after_s,
    )
    enforcer.follow(engine.feed, observations)
    deadlines = Deadlines(settings.operation_deadline_s, settings.fetch_deadline_s)
    importing_images = ImageImporting(store, submitting, settings.fetch_deadline_s)
    leases = Leases(database, clock, enforcer.renewed)
    parts = InstanceParts(
        queries=queries,
        importing=Importing(database, fleet, orphans, changes, submitting, clock),
        launching=Launching(
            database, fleet, store, changes, capacity, submitting, clock, identity, deadlines
        ),
        verbs=Verbs(
            database,
            fleet,
            changes,
            capacity,
            submitting,
            deadlines,
            identity,
            clock,
        ),
        updating=Updating(database, fleet, changes, capacity, submitting, identity, clock, rules),
        guests=Guests(queries, fleet),
        consoles=Consoles(queries, fleet),
        console_reading=ConsoleReading(queries, fleet, clock),
        leases=leases,
        stop_timeout_s=settings.stop_timeout_s,
        readiness_deadline_s=settings.readiness_deadline_s,
    )
    reconciler = Reconciler(database, engine, observations, clock)
    fences = Fences(database, identity)
    timer = ReadinessTimer(database, fleet, observations, clock)
    loops: list[Coroutine[Any, Any, None]] = [
        reconciler.run(),
        timer.run(),
        enforcer.run(),
        images.run(),
        *(RunnerWatch(runner, observations, fences, clock).run() for runner in runners),
    ]
    nodes = Nodes(database, fleet, capacity, store, images)
    bundles = Bundles(database, engine, evidence, nodes, clock)
    services = _services(parts, importing_images, engine, nodes, orphans, bundles)
    async with AsyncExitStack() as stack:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(engine.run(), name="operations engine")
        tasks = [running, *(asyncio.create_task(loop) for loop in loops)]
        for task in tasks:
            task.add_done_callback(lambda ended: _report(ended, failed))
        stack.push_async_callback(_end, engine, running, tasks, failed)
        await stack.enter_async_context(
            grpc_server(
                settings.listen,
                services=services,
                translate=translate,
                registry=registry,
                fail_point=_fail_points(),
            )
        )
        # Before the server ends: its grace period is for answers, and a watch has no end of its own.
        stack.callback(engine.feed.close)
        stack.callback(leases.close)
        yield failed


def _services(
    parts: InstanceParts,
    importing_images: ImageImporting,
    engine: Engine,
    nodes: Nodes,
    orphans: Orphans,
    bundles: Bundles,
) -> list[tuple[str, Register]]:
    instances, operations = InstanceServicer(parts), OperationServicer(engine, bundles)
    events, hosts = EventServicer(engine), NodeServicer(nodes, orphans, parts.importing)
    imports = ImageImportServicer(importing_images)
    package = "qcontroller.controller.v1"
    return [
        (
            f"{package}.InstanceService",
            lambda server: instance_pb2_grpc.add_InstanceServiceServicer_to_server(instances, server),
        ),
        (
            f"{package}.ImageImportService",
            lambda server: image_import_pb2_grpc.add_ImageImportServiceServicer_to_server(imports, server),
        ),
        (
            f"{package}.OperationService",
            lambda server: operation_pb2_grpc.add_OperationServiceServicer_to_server(operations, server),
        ),
        (
            f"{package}.EventService",
            lambda server: host_pb2_grpc.add_EventServiceServicer_to_server(events, server),
        ),
        (
            f"{package}.NodeService",
            lambda server: host_pb2_grpc.add_NodeServiceServicer_to_server(hosts, server),
        ),
    ]


def _report(ended: "asyncio.Task[None]", failed: "asyncio.Future[None]") -> None:
    """Have the process end with the first part that ended unasked."""
    if ended.cancelled() or failed.done():
        return
    error = ended.exception()
    failed.set_exception(error or RuntimeError(f"{ended.get_name()} ended by itself"))


async def _end(
    engine: Engine,
    running: "asyncio.Task[None]",
    tasks: "list[asyncio.Task[None]]",
    failed: "asyncio.Future[None]",
) -> None:
    """Let steps reach a boundary and give the rows back; then end the rest."""
    # From here on what ends was asked to, and nobody would hear of it.
    failed.cancel()
    if not running.done():
        await engine.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _fail_points() -> FailPoints:
    return fail_points_of(os.environ)
