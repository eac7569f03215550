"""A client as a careful user writes one: every request has a key, and is repeated until it is answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2
from qcontroller.controller.v1.host_pb2_grpc import EventServiceStub, NodeServiceStub
from qcontroller.controller.v1.instance_pb2_grpc import InstanceServiceStub
from qcontroller.controller.v1.operation_pb2_grpc import OperationServiceStub
from servicekit.rpc_errors import decode

from killmatrix.image_store import NAME

T = TypeVar("T")

# What a client is to try again: the controller is away, or says that somebody behind it is.
_AGAIN: Final = frozenset(
    {
        "UNAVAILABLE",
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "RUNNER_UNAVAILABLE",
        "IMAGE_STORE_UNAVAILABLE",
        "VM_HOST_UNAVAILABLE",
        "DATABASE_UNAVAILABLE",
    }
)
_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.02
_CALL_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The controller's final word."""

    reason: str
    message: str


class Client:
    """Talks to one controller, whichever process that is."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.instances: Any = InstanceServiceStub(channel)
        self.operations: Any = OperationServiceStub(channel)
        self.events: Any = EventServiceStub(channel)
        self.nodes: Any = NodeServiceStub(channel)

    async def ask(self, verb: str, name: str, key: str, *, memory: str = "256M") -> pb.Mutation:
        """Ask for `verb`, again and again under one key, until it is accepted.

        Raises:
            Refused: It is not.
        """
        call, request = _request(verb, name, key, memory)
        answer = await self.patiently(lambda: getattr(self.instances, call)(request, timeout=_CALL_S))
        mutation: pb.Mutation = answer.mutation
        return mutation

    async def ended(self, operation_id: str) -> operation_pb2.Operation:
        """Wait for the operation's end."""
        give_up = time.monotonic() + _PATIENCE_S
        request = operation_pb2.WaitOperationRequest(id=operation_id, timeout="20s")
        while True:
            answer = await self.patiently(lambda: self.operations.WaitOperation(request, timeout=_CALL_S))
            operation: operation_pb2.Operation = answer.operation
            if operation.HasField("end_time") or time.monotonic() > give_up:
                return operation

    async def first_page(self, **chosen: Any) -> list[pb.Instance]:
        """Return the first of what a list shows; `chosen` are fields of its request."""
        request = pb.ListInstancesRequest(**chosen)
        page = await self.patiently(lambda: self.instances.ListInstances(request, timeout=_CALL_S))
        return [*page.instances]

    async def list(self) -> list[pb.Instance]:
        """Return all instances."""
        found: list[pb.Instance] = []
        token = ""
        while True:
            request = pb.ListInstancesRequest(page_size=1000, page_token=token)
            page = await self.patiently(
                lambda request=request: self.instances.ListInstances(request, timeout=_CALL_S)  # type: ignore[misc]
            )
            found.extend(page.instances)
            token = page.next_page_token
            if not token:
                return found

    async def patiently(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call until somebody answers it.

        Raises:
            Refused: The answer is no.
        """
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as exc:
                problem = decode(exc)
                if problem.reason not in _AGAIN or time.monotonic() > give_up:
                    raise Refused(problem.reason, problem.message) from exc
            await asyncio.sleep(_PAUSE_S)


def _request(verb: str, name: str, key: str, memory: str) -> tuple[str, Any]:
    options = pb.MutationOptions(request_id=key)
    match verb:
        case "launch" | "launch-off":
            request: Any = pb.LaunchInstanceRequest(
                name=name,
                image=NAME,
                start=verb == "launch",
                vm=pb.VmSpec(cpus=1, memory=memory, disk="64M"),
                options=options,
            )
            return "LaunchInstance", request
        case "start":
            return "StartInstance", pb.StartInstanceRequest(name=name, options=options)
        case "stop" | "force-stop":
            return "StopInstance", pb.StopInstanceRequest(
                name=name, force=verb == "force-stop", options=options
            )
        case "restart":
            return "RestartInstance", pb.RestartInstanceRequest(name=name, options=options)
        case "pause":
            return "PauseInstance", pb.PauseInstanceRequest(name=name, options=options)
        case "resume":
            return "ResumeInstance", pb.ResumeInstanceRequest(name=name, options=options)
        case "reset":
            return "ResetInstance", pb.ResetInstanceRequest(name=name, options=options)
        case "label":
            return "UpdateInstance", pb.UpdateInstanceRequest(
                name=name, labels={"asked": key[:40]}, options=options
            )
        case "resize":
            return "UpdateInstance", pb.UpdateInstanceRequest(name=name, memory=memory, options=options)
        case "delete" | "force-delete":
            return "DeleteInstance", pb.DeleteInstanceRequest(
                name=name, force=verb == "force-delete", options=options
            )
        case _:
            raise AssertionError(verb)
