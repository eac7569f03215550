"""`EventService`: the one event log, from a cursor or from now."""

# ruff: noqa: N802 - the contract's names

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from qcontroller.controller.v1 import host_pb2
from qcontroller.controller.v1.host_pb2_grpc import EventServiceServicer
from qcontroller.event.v1.event_pb2 import Event as EventMessage

from controller.operations import Engine, Event, Gap, OperationNotFound
from controller.servicers.convert import time_message
from controller.servicers.operation_messages import operation_document

GAP: Final = "stream.gap"


class EventServicer(EventServiceServicer):
    """Serves any number of watchers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def WatchEvents(
        self, request: host_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[host_pb2.WatchEventsResponse]:
        """Send what was and what comes; one that is too slow gets a gap and the end."""
        events = await self._engine.feed.tail(request.cursor or None)
        # A watcher is told at once that its cursor was taken.
        await context.send_initial_metadata(())
        async for item in events:
            match item:
                case Event():
                    yield host_pb2.WatchEventsResponse(event=await self._message(item))
                case Gap():
                    gap = EventMessage(cursor=item.cursor, time=time_message(datetime.now(UTC)), type=GAP)
                    yield host_pb2.WatchEventsResponse(event=gap)

    async def _message(self, event: Event) -> EventMessage:
        name, resource = await self._resource(event)
        return EventMessage(
            cursor=event.cursor,
            time=time_message(event.time),
            type=event.type,
            instance=name,
            operation=event.operation_id or "",
            resource=json_format.ParseDict(resource, Struct()),
        )

    async def _resource(self, event: Event) -> tuple[str, dict[str, Any]]:
        if not event.type.startswith("operation.") or event.operation_id is None:
            return str(event.data.get("instance", "")), dict(event.data.get("resource", {}))
        state = str(event.data.get("state", ""))
        try:
            operation = await self._engine.get(event.operation_id)
        except OperationNotFound:
            # Retention has been faster.
            return "", {"id": event.operation_id, "kind": event.data.get("kind", ""), "state": state}
        return operation.subject_name, operation_document(operation, state)
