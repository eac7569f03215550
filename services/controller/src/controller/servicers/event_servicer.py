"""EventService: the one event log as a stream."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode
from qcontroller.controller.v1 import host_pb2 as pb
from qcontroller.controller.v1 import host_pb2_grpc
from qcontroller.event.v1 import event_pb2
from servicekit.rpc_errors import RpcProblem

from controller.domain.fault import Fault
from controller.errors import RequestInvalid
from controller.operations import Engine, Event, Gap, OperationNotFound, everything
from controller.problems import translate
from controller.servicers.convert import time_message
from controller.servicers.operation_messages import operation_document

# In the initial metadata: the position after which the stream starts. It comes only if the cursor was good.
CURSOR_KEY: Final = "qcontroller-cursor"
EVENT_TYPES: Final = (
    *("instance.created", "instance.updated", "instance.deleted"),
    *("operation.created", "operation.updated", "operation.finished"),
    *("image.created", "image.updated", "image.deleted"),
    "node.updated",
)
_STOPS: Final = "The controller stops; resume after the last cursor."
_GAP: Final = "stream.gap"
_OPERATION: Final = "operation."


class EventServicer(host_pb2_grpc.EventServiceServicer):
    """Serves watchers from the engine's feed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Any
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        tail = await self._engine.feed.tail(request.cursor or None, _wanted(request))
        try:
            # The cursor is good: a client must not wait for the first event to know it.
            await context.send_initial_metadata(((CURSOR_KEY, tail.start),))
            async for item in tail:
                if isinstance(item, Gap):
                    yield pb.WatchEventsResponse(event=_gap(item))
                    raise item.why
                yield pb.WatchEventsResponse(event=await self._message(item))
            raise RpcProblem(StatusCode.UNAVAILABLE, "CONTROLLER_UNAVAILABLE", _STOPS)
        finally:
            await tail.aclose()

    async def _message(self, event: Event) -> event_pb2.Event:
        name, resource = _instance_of(event), dict(event.data.get("resource", {}))
        if event.type.startswith(_OPERATION):
            name, resource = await self._operation(event)
        struct = Struct()
        struct.update(resource)
        return event_pb2.Event(
            cursor=event.cursor,
            time=time_message(event.time),
            type=event.type,
            instance=name,
            operation=event.operation_id or "",
            resource=struct,
        )

    async def _operation(self, event: Event) -> tuple[str, dict[str, Any]]:
        """Return the instance's name and the operation as REST shows it, in the state the event tells."""
        try:
            operation = await self._engine.get(event.operation_id or "")
        except OperationNotFound:
            # Its history has been trimmed since.
            return _instance_of(event), {"id": event.operation_id or "", **event.data}
        return operation.subject_name, operation_document(operation, str(event.data.get("state", "")))


def _wanted(request: pb.WatchEventsRequest) -> Callable[[Event], bool]:
    """Return the filter that the request asks for.

    Raises:
        RequestInvalid: It names a type that no event has.
    """
    faults = [
        Fault(f"/types/{index}", f"must be one of {', '.join(EVENT_TYPES)}")
        for index, name in enumerate(request.types)
        if name not in EVENT_TYPES
    ]
    if faults:
        raise RequestInvalid(faults)
    names, types = frozenset(request.instances), frozenset(request.types)
    if not names and not types:
        return everything
    return lambda event: (not types or event.type in types) and (not names or _instance_of(event) in names)


def _instance_of(event: Event) -> str:
    """Return the name of the instance that the event is about, or ""."""
    return str(event.data.get("instance", event.data.get("subjectName", "")))


def _gap(gap: Gap) -> event_pb2.Event:
    problem = translate(gap.why)
    why = Struct()
    if problem is not None:
        why.update({"reason": problem.reason, "detail": problem.message})
    now = time_message(datetime.now(UTC))
    return event_pb2.Event(cursor=gap.cursor, time=now, type=_GAP, resource=why)
