"""The event feed: replay from a cursor, then live.

It owns reading `events`. One tail reader feeds all watchers; a watcher that does not keep up is closed, never
waited for. An event is read once every transaction that began before its own has ended, in order of
(transaction, number): what comes later in time then always comes later in the log (`database.visibility`).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, literal, select, tuple_

from controller.database import Database, oldest_open_transaction
from controller.operations import cursor as cursors
from controller.operations.attempt import backoff_s
from controller.operations.clock import Clock
from controller.operations.cursor import Cursor, Position
from controller.operations.errors import CursorError, CursorExpired, CursorInvalid, ReaderTooSlow
from controller.operations.metrics import Metrics
from controller.operations.rows import events, meta

_log = logging.getLogger(__name__)

_BATCH = 500
WATCHER_QUEUE = 1000
# Nobody tells when a transaction of another database or of a person ends that holds events back.
_HELD_BACK_LOOK_S = 0.05
_VISIBLE = events.c.xid < oldest_open_transaction()


@dataclass(frozen=True, slots=True)
class Event:
    """One event as stored.

    Attributes:
        position: Where it stands in the log.
        cursor: Opaque; resuming from it starts with the next event.
        subject: Id of the object it is about.
        operation_id: The operation that caused it.
        fence: The operation's fence then, 0 without one.
    """

    position: Position
    cursor: Cursor
    time: datetime
    type: str
    tenant: str
    subject: str | None
    operation_id: str | None
    data: Mapping[str, Any]
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """The last item of a watcher that is cut: what comes after `cursor` was not handed to it.

    Attributes:
        cursor: The last event that it was handed; resuming after it may be refused by then.
        why: What a client is told.
    """

    cursor: Cursor
    why: CursorError


def everything(event: Event) -> bool:
    """Let every event through."""
    del event
    return True


class Tail:
    """A watcher's events, from `start` on; closing it is what lets the feed forget the watcher."""

    def __init__(self, start: Cursor, items: AsyncGenerator[Event | Gap, None]) -> None:
        self.start = start
        self._items = items

    def __aiter__(self) -> "Tail":
        return self

    async def __anext__(self) -> Event | Gap:
        return await anext(self._items)

    async def aclose(self) -> None:
        """End the watcher."""
        await self._items.aclose()


@dataclass(frozen=True, slots=True)
class _Bounds:
    epoch: str
    floor: Position
    newest: Position


@dataclass(frozen=True, slots=True)
class _Batch:
    events: list[Event]
    held_back_since: datetime | None


class _Watcher:
    def __init__(self, limit: int, wanted: Callable[[Event], bool]) -> None:
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue(limit)
        self.overrun = False
        self._wanted = wanted

    def wake(self) -> None:
        """Have the reader look whether the feed is closed; one that has something to read will anyway."""
        if self.queue.empty():
            self.queue.put_nowait(None)

    def offer(self, event: Event) -> None:
        if self.overrun or not self._wanted(event):
            return
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.overrun = True


class Feed:
    """Serves watchers while `follow` runs."""

    def __init__(
        self, database: Database, clock: Clock, metrics: Metrics, *, watcher_queue: int = WATCHER_QUEUE
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._watcher_queue = watcher_queue
        self._watchers: set[_Watcher] = set()
        self._listeners: list[Callable[[Event], None]] = []
        self._wake = asyncio.Event()
        self._started = asyncio.Event()
        self._handed_out = Position(0, 0)
        self._closed = False

    async def tail(self, cursor: str | None = None, wanted: Callable[[Event], bool] = everything) -> Tail:
        """Open a watcher; `async for item in await feed.tail(cursor)`.

        Args:
            cursor: Where to resume; None starts with the next event to come.
            wanted: Which events it is handed; the others cost it no room.

        Raises:
            CursorInvalid: The cursor is not one of ours.
            CursorExpired: Its events are no longer kept.
            DatabaseError: The events cannot be read.
        """
        await self._started.wait()
        bounds = await self._database.read(_bounds)
        if cursor is None:
            return self._tail(bounds.epoch, bounds.newest, wanted)
        epoch, position = cursors.decode(cursor)
        if epoch != bounds.epoch or position < bounds.floor:
            raise CursorExpired("the events after this cursor are no longer kept")
        if position > bounds.newest:
            raise CursorInvalid("this cursor lies in the future")
        return self._tail(epoch, position, wanted)

    def _tail(self, epoch: str, position: Position, wanted: Callable[[Event], bool]) -> Tail:
        return Tail(_cursor(epoch, position), self._serve(epoch, position, wanted))

    async def now(self) -> Cursor:
        """Return the cursor of the newest event: list, then tail from here, and nothing is missed."""
        bounds = await self._database.read(_bounds)
        return _cursor(bounds.epoch, bounds.newest)

    def on_event(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` on the loop for every event from now on, in order."""
        self._listeners.append(listener)

    async def open(self) -> None:
        """Take up the position from which on every event is handed out; once, before `follow`.

        Raises:
            DatabaseError: The events cannot be read.
        """
        self._handed_out = (await self._database.read(_bounds)).newest
        self._wake.set()
        self._started.set()

    def close(self) -> None:
        """End every watcher, those too that are yet to come: the service stops, and they resume later."""
        self._closed = True
        for watcher in self._watchers:
            watcher.wake()

    async def follow(self) -> None:
        """Read what commits and hand it out, for ever; survives outages of the database."""
        failures = 0
        unsubscribe = self._database.on_commit(self._wake.set)
        try:
            while True:
                try:
                    await self._wake.wait()
                    self._wake.clear()
                    await self._hand_out_new()
                    failures = 0
                except Exception:  # noqa: BLE001 - loops go on, counted
                    failures += 1
                    self._metrics.loop_errors.labels("feed").inc()
                    _log.exception("reading events failed")
                    self._wake.set()
                    await self._clock.sleep(backoff_s(failures))
        finally:
            unsubscribe()

    async def _hand_out_new(self) -> None:
        while True:
            batch = await self._read_after(self._handed_out)
            self._note_held_back(batch.held_back_since)
            if not batch.events:
                return
            for event in batch.events:
                self._handed_out = event.position
                for listener in self._listeners:
                    listener(event)
                for watcher in self._watchers:
                    watcher.offer(event)
            self._metrics.feed_lag_seconds.set(self._age_s(batch.events[-1].time))

    def _note_held_back(self, since: datetime | None) -> None:
        self._metrics.feed_invisible_seconds.set(0.0 if since is None else self._age_s(since))
        if since is not None:
            asyncio.get_running_loop().call_later(_HELD_BACK_LOOK_S, self._wake.set)

    def _age_s(self, since: datetime) -> float:
        return max(0.0, (self._clock.now() - since).total_seconds())

    async def _serve(
        self, epoch: str, position: Position, wanted: Callable[[Event], bool]
    ) -> AsyncGenerator[Event | Gap, None]:
        while not self._closed:
            # No await lies between this comparison and joining: nothing is missed and nothing comes twice.
            if position >= self._handed_out:
                break
            batch = await self._read_after(position)
            if position < (await self._database.read(_bounds)).floor:
                why = CursorExpired("the next events were trimmed before they were read")
                yield Gap(_cursor(epoch, position), why)
                return
            for event in batch.events:
                position = event.position
                if wanted(event):
                    yield event
        watcher = _Watcher(self._watcher_queue, wanted)
        self._watchers.add(watcher)
        self._metrics.watchers.inc()
        try:
            while not self._closed and not (watcher.overrun and watcher.queue.empty()):
                event_or_end = await watcher.queue.get()
                if event_or_end is not None and event_or_end.position > position:
                    position = event_or_end.position
                    yield event_or_end
            if not self._closed:
                yield Gap(_cursor(epoch, position), ReaderTooSlow(self._watcher_queue))
        finally:
            self._watchers.discard(watcher)
            self._metrics.watchers.dec()

    async def _read_after(self, position: Position) -> _Batch:
        def read(conn: Connection) -> _Batch:
            rows = conn.execute(
                select(events)
                .where(_after(position), _VISIBLE)
                .order_by(events.c.xid, events.c.rev)
                .limit(_BATCH)
            )
            held_back = conn.execute(select(func.min(events.c.ts)).where(_after(position), ~_VISIBLE))
            return _Batch([_to_event(row) for row in rows], held_back.scalar_one())

        return await self._database.read(read)


def _after(position: Position) -> ColumnElement[bool]:
    return tuple_(events.c.xid, events.c.rev) > tuple_(literal(position.xid), literal(position.rev))


def _to_event(row: Row[Any]) -> Event:
    position = Position(row.xid, row.rev)
    return Event(
        position=position,
        cursor=_cursor(row.epoch, position),
        time=row.ts,
        type=row.type,
        tenant=row.tenant,
        subject=row.subject,
        operation_id=row.op_id,
        data=row.data,
        fence=row.fence,
    )


def _cursor(epoch: str, position: Position) -> Cursor:
    return cursors.encode(epoch, position.rev, position.xid)


def _bounds(conn: Connection) -> _Bounds:
    row = conn.execute(select(meta.c.db_epoch, meta.c.events_floor_xid, meta.c.events_floor)).one()
    floor = Position(row.events_floor_xid, row.events_floor)
    last = conn.execute(
        select(events.c.xid, events.c.rev)
        .where(_VISIBLE)
        .order_by(events.c.xid.desc(), events.c.rev.desc())
        .limit(1)
    ).one_or_none()
    newest = floor if last is None else max(floor, Position(last.xid, last.rev))
    return _Bounds(row.db_epoch, floor, newest)
