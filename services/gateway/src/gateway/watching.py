"""One watch of the controller's event log, whatever form it is handed on in.

It owns asking for the stream and the reasons for its end. A writer that is slow holds up nothing but its own
watch: what it has not taken waits in the controller, up to a limit, and then comes `stream.gap`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from qcontroller.controller.v1 import host_pb2 as pb
from qcontroller.event.v1.event_pb2 import Event

from gateway.backends import CONTROLLER, DEADLINE_S, next_of
from gateway.calls import Call
from gateway.convert import to_json, with_problem
from gateway.errors import GatewayError, PeerUnavailableError

HEARTBEAT_S: Final = 15.0
GAP: Final = "stream.gap"
# Why a watch ended; what the controller itself says comes besides.
CLIENT_GONE: Final = ""
GATEWAY_STOPPING: Final = "GATEWAY_STOPPING"
# In the initial metadata, and only if the controller takes the cursor: where the stream starts.
_CURSOR_KEY: Final = "qcontroller-cursor"

# Takes an event, or None where none has come for the time of a heartbeat.
Write = Callable[[Event | None], Awaitable[None]]


class Watch:
    """An accepted watch; `close` it."""

    def __init__(self, stream: Any, cursor: str) -> None:
        """Use `open_watch`."""
        self._stream = stream
        self.cursor = cursor

    def close(self) -> None:
        """Hang up."""
        self._stream.cancel()

    async def hand_on(
        self, write: Write, gone: "asyncio.Future[Any]", closing: asyncio.Event, heartbeat_s: float
    ) -> str:
        """Give every event to `write` until an end comes; return why.

        A `write` that takes no end is given up when the client is gone or the gateway stops.
        """
        work = asyncio.ensure_future(self._pump(write, heartbeat_s))
        stop = asyncio.ensure_future(closing.wait())
        try:
            await asyncio.wait({work, gone, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            return CLIENT_GONE if gone.done() else GATEWAY_STOPPING
        finally:
            work.cancel()
            stop.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)

    async def _pump(self, write: Write, heartbeat_s: float) -> str:
        pending = asyncio.ensure_future(self._next())
        try:
            while True:
                done, _ = await asyncio.wait({pending}, timeout=heartbeat_s)
                if not done:
                    await write(None)
                    continue
                try:
                    message = pending.result()
                except GatewayError as exc:
                    return exc.reason
                if message is None:
                    return CONTROLLER.absence
                await write(message.event)
                if message.event.type == GAP:
                    return reason_of_gap(message.event)
                pending = asyncio.ensure_future(self._next())
        finally:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)

    async def _next(self) -> pb.WatchEventsResponse | None:
        return await next_of(CONTROLLER, self._stream, idle_s=None)


async def open_watch(stub: Any, call: Call) -> Watch:
    """Ask for the events that `call` wants.

    Raises:
        RemoteError, RequestInvalidError: The controller refuses the cursor or the filter.
        PeerUnavailableError: It is away, or says neither yes nor no.
    """
    cursor = call.request.headers.get("last-event-id") or call.query.get("cursor", "")
    request = pb.WatchEventsRequest(
        cursor=cursor, instances=call.query.get("instance", ()), types=call.query.get("type", ())
    )
    stream = stub.WatchEvents(request)
    try:
        async with asyncio.timeout(DEADLINE_S):
            return Watch(stream, await _start_of(stream))
    except TimeoutError as exc:
        stream.cancel()
        raise PeerUnavailableError(
            CONTROLLER.absence, CONTROLLER.name, f"nothing for {DEADLINE_S} s"
        ) from exc
    except BaseException:
        stream.cancel()
        raise


async def _start_of(stream: Any) -> str:
    told = dict(await stream.initial_metadata() or ())
    if _CURSOR_KEY not in told:
        # The head of a refusal: its reason follows.
        await next_of(CONTROLLER, stream, idle_s=None)
        raise PeerUnavailableError(CONTROLLER.absence, CONTROLLER.name, "a stream without a beginning")
    return str(told[_CURSOR_KEY])


def event_document(event: Event) -> dict[str, Any]:
    """Return one event as the contract shows it."""
    document = {"resource": {}, **to_json(event)}
    if event.type.startswith("operation."):
        document["resource"] = with_problem(document["resource"])
    return document


def reason_of_gap(event: Event) -> str:
    """Return why a watch was cut."""
    return event.resource.fields["reason"].string_value
