"""Composition root of the gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from prometheus_client import CollectorRegistry
from qcontroller.settings.v1.settings_pb2 import GatewaySettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, WebSocketRoute
from starlette.types import ASGIApp

from gateway.access import AccessRule
from gateway.backends import Backends, backends
from gateway.boundary import Boundary
from gateway.calls import Call
from gateway.console_logs import ConsoleLogs
from gateway.console_page import console_page_routes
from gateway.console_sockets import ConsoleSockets
from gateway.console_tickets import ConsoleTickets
from gateway.consoles import Consoles
from gateway.contract import Contract, load_contract
from gateway.dispatch import Handler, connexion_app
from gateway.event_sockets import EventSockets, NoSocket
from gateway.events import Events
from gateway.exec_sockets import ExecSockets
from gateway.fresh_context import FreshContext
from gateway.guests import Guests
from gateway.health import Health
from gateway.image_imports import ImageImports
from gateway.images import Images
from gateway.instances import Instances
from gateway.leases import Leases
from gateway.metrics import HttpMetrics
from gateway.mutations import Mutations
from gateway.nodes import Nodes
from gateway.operations import Operations
from gateway.server import http_server
from gateway.swagger import page_routes
from gateway.ticket_veil import TicketVeil
from gateway.watching import HEARTBEAT_S

_MAX_BODY_BYTES: Final = 1024 * 1024
_LISTEN: Final = "127.0.0.1:8080"


@asynccontextmanager
async def application(
    settings: GatewaySettings, registry: CollectorRegistry
) -> AsyncIterator["asyncio.Future[None]"]:
    """Serve REST while the context is open; yield the server's task."""
    contract = await asyncio.to_thread(load_contract)
    closing = asyncio.Event()
    async with AsyncExitStack() as stack:
        peers = await stack.enter_async_context(backends(settings.controller, settings.image_store))
        app = rest_app(settings, contract, peers, registry, closing)
        task, _ = await stack.enter_async_context(http_server(app, settings.listen or _LISTEN, closing))
        yield task


def rest_app(
    settings: GatewaySettings,
    contract: Contract,
    peers: Backends,
    registry: CollectorRegistry,
    closing: asyncio.Event,
    *,
    heartbeat_s: float = HEARTBEAT_S,
) -> ASGIApp:
    """Return the whole ASGI application."""
    mutations = Mutations(peers)
    tickets = ConsoleTickets()
    instances, operations = Instances(peers, mutations), Operations(peers, mutations)

    async def precheck(call: Call) -> None:
        await (operations if call.operation.names_operation else instances).precheck(call)

    handlers = _handlers(
        instances,
        ConsoleLogs(peers, closing),
        Images(peers),
        ImageImports(peers, mutations),
        operations,
        Events(peers, closing, heartbeat_s=heartbeat_s),
        Guests(peers),
        Consoles(peers, tickets),
        Leases(peers, closing),
        Nodes(peers, mutations),
        Health(peers, contract, registry),
    )
    max_body_bytes = settings.max_body_bytes or _MAX_BODY_BYTES
    served = connexion_app(contract, handlers, precheck, max_body_bytes)
    boundary = Middleware(
        Boundary,
        contract=contract,
        rule=AccessRule(settings.external_names),
        metrics=HttpMetrics(registry),
    )
    # Whatever Starlette itself would answer is handed on to the boundary, which makes a problem of it.
    starlette = Starlette(
        middleware=[boundary],
        routes=[
            WebSocketRoute("/v1/events", EventSockets(contract, peers, closing)),
            WebSocketRoute(
                "/v1/instances/{name}/exec", ExecSockets(contract, peers, closing, max_body_bytes)
            ),
            WebSocketRoute(
                "/v1/instances/{name}/console/attach", ConsoleSockets(contract, peers, tickets, closing)
            ),
            WebSocketRoute("/{path:path}", NoSocket()),
            *console_page_routes(),
            *page_routes(swagger=not settings.swagger_disabled),
            Mount("/", app=served),
        ],
        exception_handlers={HTTPException: _hand_on},
    )
    starlette.router.redirect_slashes = False
    return TicketVeil(FreshContext(OpenTelemetryMiddleware(starlette, exclude_spans=["receive", "send"])))


async def _hand_on(request: Request, error: Exception) -> Response:
    del request
    raise error


def _handlers(
    instances: Instances,
    console_logs: ConsoleLogs,
    images: Images,
    image_imports: ImageImports,
    operations: Operations,
    events: Events,
    guests: Guests,
    consoles: Consoles,
    leases: Leases,
    nodes: Nodes,
    health: Health,
) -> dict[str, Handler]:
    """Return the handler of every operationId."""
    return {
        "launchInstance": instances.launch,
        "importInstance": instances.take,
        "listInstances": instances.list,
        "getInstance": instances.get,
        "updateInstance": instances.update,
        "deleteInstance": instances.delete,
        "startInstance": instances.start,
        "stopInstance": instances.stop,
        "restartInstance": instances.restart,
        "pauseInstance": instances.pause,
        "resumeInstance": instances.resume,
        "resetInstance": instances.reset,
        "waitInstance": instances.wait,
        "getOperationBundle": operations.bundle,
        "attachConsole": consoles.attach,
        "createConsoleTicket": consoles.issue,
        "readConsole": console_logs.read,
        "execInstance": instances.execute,
        "getGuest": guests.report,
        "streamExec": guests.stream_exec,
        "pushFile": guests.push,
        "pullFile": guests.pull,
        "setGuestPassword": guests.set_password,
        "authoriseSshKeys": guests.authorise_keys,
        "freezeGuest": guests.freeze,
        "thawGuest": guests.thaw,
        "renewLease": leases.renew,
        "holdLease": leases.hold,
        "uploadImage": images.put,
        "importImage": image_imports.take,
        "uploadImageForm": images.post_form,
        "listImages": images.list,
        "getImage": images.get,
        "deleteImage": images.delete,
        "downloadImage": images.content,
        "listOperations": operations.list,
        "getOperation": operations.get,
        "cancelOperation": operations.cancel,
        "watchEvents": events.watch,
        "listNodes": nodes.list,
        "getNode": nodes.get,
        "listLeaks": nodes.leaks,
        "listOrphans": nodes.orphans,
        "deleteOrphan": nodes.delete_orphan,
        "runDoctor": nodes.doctor,
        "getHealth": health.alive,
        "getReadiness": health.ready,
        "getMetrics": health.metrics,
        "getSpecification": health.specification,
    }
