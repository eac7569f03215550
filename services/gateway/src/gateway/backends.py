"""The gateway's peers over gRPC: every call has a deadline, every failure becomes a GatewayError."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2_grpc
from qcontroller.controller.v1.host_pb2_grpc import EventServiceStub, NodeServiceStub
from qcontroller.controller.v1.image_import_pb2_grpc import ImageImportServiceStub
from qcontroller.controller.v1.instance_pb2_grpc import InstanceServiceStub
from qcontroller.controller.v1.operation_pb2_grpc import OperationServiceStub
from qcontroller.image.v1.image_pb2_grpc import ImageServiceStub
from servicekit.channel import grpc_channel
from servicekit.rpc_errors import decode, is_unreachable

from gateway.errors import Fault, GatewayError, PeerUnavailableError, RemoteError, RequestInvalidError

DEADLINE_S: Final = 15.0
_MessageT = TypeVar("_MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class Peer:
    """One service behind the gateway: its name and the reason for its absence."""

    name: str
    absence: str

    def error_of(self, error: grpc.aio.AioRpcError) -> GatewayError:
        """Return what the client is told of `error`."""
        problem = decode(error)
        if is_unreachable(problem):
            return PeerUnavailableError(self.absence, self.name, problem.message)
        faults = [Fault(violation.pointer, violation.detail) for violation in problem.violations]
        if faults and problem.reason == "FIELD_INVALID":
            return RequestInvalidError(faults)
        return RemoteError(problem.code.name, problem.reason, problem.message, problem.metadata, faults)


CONTROLLER: Final = Peer("controller", "CONTROLLER_UNAVAILABLE")
IMAGE_STORE: Final = Peer("image-store", "IMAGE_STORE_UNAVAILABLE")


class Backends:
    """Stubs of every service that the gateway speaks to."""

    def __init__(self, controller: grpc.aio.Channel, image_store: grpc.aio.Channel) -> None:
        self.instances = InstanceServiceStub(controller)
        self.operations = OperationServiceStub(controller)
        self.imports = ImageImportServiceStub(controller)
        self.events = EventServiceStub(controller)
        self.nodes = NodeServiceStub(controller)
        self.controller_health = health_pb2_grpc.HealthStub(controller)
        self.images = ImageServiceStub(image_store)
        self.image_store_health = health_pb2_grpc.HealthStub(image_store)


@asynccontextmanager
async def backends(controller: str, image_store: str) -> AsyncIterator[Backends]:
    """Open the channels; peers may be away and come back at any time."""
    async with grpc_channel(controller) as first, grpc_channel(image_store) as second:
        yield Backends(first, second)


async def ask(
    peer: Peer,
    method: Callable[..., Awaitable[_MessageT]],
    request: Message,
    *,
    deadline_s: float = DEADLINE_S,
    wait_for_ready: bool = False,
) -> _MessageT:
    """Return the answer of one call.

    Raises:
        PeerUnavailableError: The peer is away, or did not answer within `deadline_s`.
        RemoteError, RequestInvalidError: It refused.
    """
    try:
        return await method(request, timeout=deadline_s, wait_for_ready=wait_for_ready)
    except grpc.aio.AioRpcError as exc:
        raise peer.error_of(exc) from exc


async def next_of(
    peer: Peer,
    call: "grpc.aio.UnaryStreamCall[Any, _MessageT] | grpc.aio.StreamStreamCall[Any, _MessageT]",
    *,
    idle_s: float | None,
) -> _MessageT | None:
    """Return the next message of a stream; None at its end.

    Raises:
        PeerUnavailableError: The peer went away, or sent nothing for `idle_s`.
        RemoteError, RequestInvalidError: It refused.
    """
    try:
        async with asyncio.timeout(idle_s):
            async for message in call:
                return message
    except grpc.aio.AioRpcError as exc:
        raise peer.error_of(exc) from exc
    except TimeoutError as exc:
        call.cancel()
        raise PeerUnavailableError(peer.absence, peer.name, f"nothing for {idle_s} s") from exc
    return None
