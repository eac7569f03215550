"""Composition root: puts the parts together, keeps their tasks alive, serves the public services."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client import CollectorRegistry
from qcontroller.controller.v1 import host_pb2_grpc, instance_pb2_grpc, operation_pb2_grpc
from qcontroller.settings.v1.settings_pb2 import ControllerSettings
from servicekit.channel import grpc_channel
from servicekit.server import Register, grpc_server
from sqlalchemy import select

from controller.adapters.image_store_client import ImageStoreClient
from controller.adapters.runner_client import RunnerClient
from controller.database import Database
from controller.instances.changes import Changes
from controller.instances.fleet import Fleet
from controller.instances.guests import Guests
from controller.instances.image_feed import ImageFeed
from controller.instances.launching import Launching
from controller.instances.nodes import Nodes
from controller.instances.observations import Observations
from controller.instances.queries import Queries
from controller.instances.readiness_timer import ReadinessTimer
from controller.instances.reconciler import Reconciler
from controller.instances.runner_watch import RunnerWatch
from controller.instances.submitting import Submitting
from controller.instances.updating import Updating
from controller.instances.verbs import Verbs
from controller.operations import Clock, Engine, EngineSettings, Outbox, SystemClock
from controller.operations.rows import meta
from controller.plans.kinds import build_plans
from controller.plans.workbench import Workbench
from controller.ports import ImageStore, Runner
from controller.problems import translate
from controller.servicers.event_servicer import EventServicer
from controller.servicers.instance_servicer import InstanceServicer
from controller.servicers.node_servicer import NodeServicer
from controller.servicers.operation_servicer import OperationServicer
from controller.settings import Settings, parse_settings


@asynccontextmanager
async def application(
    message: ControllerSettings, registry: CollectorRegistry
) -> AsyncIterator["asyncio.Future[None]"]:
    """Run the controller against the peers that the settings name.

    Raises:
        SettingsError: The settings cannot be used.
        DatabaseError: The database cannot be opened, or another controller has it.
        AddressInUseError: An address is taken.
    """
    settings = parse_settings(message)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(settings.database))
        store = ImageStoreClient(await stack.enter_async_context(grpc_channel(settings.image_store)))
        runners = [
            RunnerClient(node, await stack.enter_async_context(grpc_channel(target)))
            for node, target in settings.runners
        ]
        yield await stack.enter_async_context(serve(settings, database, store, runners, registry))


@asynccontextmanager
async def serve(
    settings: Settings,
    database: Database,
    store: ImageStore,
    runners: Sequence[Runner],
    registry: CollectorRegistry,
    clock: Clock | None = None,
) -> AsyncIterator["asyncio.Future[None]"]:
    """Serve until the context is left; what is yielded ends only if a part has failed."""
    clock = clock or SystemClock()
    cluster_id = await database.read(lambda conn: conn.execute(select(meta.c.db_epoch)).scalar_one())
    outbox = Outbox(clock)
    fleet = Fleet(runners, clock)
    changes = Changes(fleet, clock)
    observations = Observations(database, fleet, changes, outbox)
    bench = Workbench(database, fleet, store, changes, observations, cluster_id)
    engine = Engine(
        database,
        build_plans(bench, settings.operation_deadline_s),
        settings=EngineSettings(slots=settings.slots),
        clock=clock,
        registry=registry,
    )
    submitting = Submitting(database, engine)
    queries = Queries(database, fleet, engine.feed, clock)
    images = ImageFeed(database, store, outbox, clock)
    instance_servicer = InstanceServicer(
        Launching(database, fleet, store, changes, submitting, clock, cluster_id),
        Verbs(database, fleet, changes, submitting, settings.operation_deadline_s, cluster_id),
        Updating(fleet, changes, submitting),
        queries,
        Guests(queries, fleet),
        settings,
    )
    services = _services(
        instance_servicer,
        OperationServicer(engine, submitting),
        EventServicer(engine),
        NodeServicer(Nodes(database, fleet, store, images)),
    )
    work = [
        engine.run(),
        Reconciler(database, engine, observations).run(),
        ReadinessTimer(database, fleet, observations, clock).run(),
        images.run(),
        *(RunnerWatch(runner, observations, clock).run() for runner in runners),
    ]
    tasks = [asyncio.ensure_future(part) for part in work]
    first_end = asyncio.ensure_future(_first_end(tasks))
    try:
        async with grpc_server(settings.listen, services=services, translate=translate, registry=registry):
            yield first_end
    finally:
        await engine.stop()
        for task in (first_end, *tasks[1:]):
            task.cancel()
        await asyncio.gather(first_end, *tasks, return_exceptions=True)


async def _first_end(tasks: Sequence["asyncio.Future[None]"]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def _services(
    instances: InstanceServicer, operations: OperationServicer, events: EventServicer, nodes: NodeServicer
) -> list[tuple[str, Register]]:
    package = "qcontroller.controller.v1"
    return [
        (
            f"{package}.InstanceService",
            lambda server: instance_pb2_grpc.add_InstanceServiceServicer_to_server(instances, server),
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
            lambda server: host_pb2_grpc.add_NodeServiceServicer_to_server(nodes, server),
        ),
    ]
