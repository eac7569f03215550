"""EventService: the one event log as a stream."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct
from qcontroller.controller.v1 import host_pb2 as pb
from qcontroller.controller.v1 import host_pb2_grpc
from qcontroller.event.v1 import event_pb2

from controller.operations import Engine, Event, Gap, OperationNotFound
from controller.servicers.convert import time_message
from controller.servicers.operation_messages import operation_document

_OPERATION: Final = "operation."


class EventServicer(host_pb2_grpc.EventServiceServicer):
    """Serves watchers from the engine's feed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Any
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        events = await self._engine.feed.tail(request.cursor or None)
        # The cursor is good: a client must not wait for the first event to know it.
        await context.send_initial_metadata(())
        async for item in events:
            yield pb.WatchEventsResponse(event=await self._message(item))

    async def _message(self, item: Event | Gap) -> event_pb2.Event:
        if isinstance(item, Gap):
            now = time_message(datetime.now(UTC))
            return event_pb2.Event(cursor=item.cursor, time=now, type="stream.gap")
        name, resource = str(item.data.get("instance", "")), dict(item.data.get("resource", {}))
        if item.type.startswith(_OPERATION):
            name, resource = await self._operation(item)
        struct = Struct()
        struct.update(resource)
        return event_pb2.Event(
            cursor=item.cursor,
            time=time_message(item.time),
            type=item.type,
            instance=name,
            operation=item.operation_id or "",
            resource=struct,
        )

    async def _operation(self, event: Event) -> tuple[str, dict[str, Any]]:
        """Return the instance's name and the operation as REST shows it, in the state the event tells."""
        try:
            operation = await self._engine.get(event.operation_id or "")
        except OperationNotFound:
            # Its history has been trimmed since.
            return "", {"id": event.operation_id or "", **event.data}
        return operation.subject_name, operation_document(operation, str(event.data.get("state", "")))
