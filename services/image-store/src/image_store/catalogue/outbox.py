"""The outbox: events, committed with the change that they tell of, kept for a week."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from image_store.catalogue.documents import Document, resource_of
from image_store.catalogue.schema import EVENTS, META
from image_store.errors import CursorExpiredError
from image_store.image import Image
from image_store.tokens import cursor, parse_cursor

RETENTION: Final = timedelta(days=7)
# Each event that is written removes up to so many old ones, so that no write is ever long.
_PRUNED_AT_ONCE: Final = 100


class EventType(StrEnum):
    """What happened to an image."""

    CREATED = "image.created"
    UPDATED = "image.updated"
    DELETED = "image.deleted"


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place in the log; `resource` is the image as REST shows it."""

    seq: int
    cursor: str
    time: datetime
    type: EventType
    resource: Document


def append_event(connection: Connection, kind: EventType, image: Image, now: datetime) -> int:
    """Write the event of what happened to `image`, deleted ones in their last form; return its position."""
    _prune(connection, now - RETENTION)
    written = connection.execute(
        insert(EVENTS).values(time=now, type=kind.value, resource=resource_of(image)).returning(EVENTS.c.seq)
    )
    return int(written.scalar_one())


def position_of(connection: Connection, text: str) -> int:
    """Return the position that a cursor stands for; an empty one stands before the oldest event.

    Raises:
        CursorInvalidError: It is no cursor.
        CursorExpiredError: It is of another database, behind the retained events, or ahead of all (the
            database is an older copy of the one that gave it out).
    """
    epoch, floor = _meta(connection)
    if not text:
        return floor
    theirs, seq = parse_cursor(text)
    last = connection.execute(select(func.max(EVENTS.c.seq))).scalar_one() or floor
    if theirs != epoch or not floor <= seq <= last:
        raise CursorExpiredError
    return seq


def events_after(connection: Connection, seq: int, limit: int) -> list[StoredEvent]:
    """Return up to `limit` events behind the position `seq`, in order.

    Raises:
        CursorExpiredError: Some of them have been removed: the reader was too slow.
    """
    epoch, floor = _meta(connection)
    if seq < floor:
        raise CursorExpiredError
    rows = connection.execute(select(EVENTS).where(EVENTS.c.seq > seq).order_by(EVENTS.c.seq).limit(limit))
    return [
        StoredEvent(row.seq, cursor(epoch, row.seq), row.time, EventType(row.type), row.resource)
        for row in rows
    ]


def epoch_of(connection: Connection) -> str:
    """Return the word by which this database differs from every other one."""
    return _meta(connection)[0]


def _meta(connection: Connection) -> tuple[str, int]:
    row = connection.execute(select(META.c.epoch, META.c.events_floor)).one()
    return row.epoch, row.events_floor


def _prune(connection: Connection, before: datetime) -> None:
    old = select(EVENTS.c.seq).where(EVENTS.c.time < before).order_by(EVENTS.c.seq).limit(_PRUNED_AT_ONCE)
    floor = connection.execute(select(func.max(old.subquery().c.seq))).scalar_one()
    if floor is not None:
        connection.execute(delete(EVENTS).where(EVENTS.c.seq <= floor))
        connection.execute(update(META).values(events_floor=floor))
