"""The event feed: replay from a cursor, then live.

It owns reading `events`. One tail reader feeds all watchers; a watcher that does not keep up is closed, never waited for.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NewType

Cursor = NewType("Cursor", str)


@dataclass(frozen=True, slots=True)
class Event:
    """One event as stored.

    Attributes:
        rev: Position in the log.
        cursor: Opaque; resuming from it starts with the next event.
        subject: Id of the object it is about.
        operation_id: The operation that caused it.
    """

    rev: int
    cursor: Cursor
    time: datetime
    type: str
    tenant: str
    subject: str | None
    operation_id: str | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gap:
    """The last item of a watcher that was too slow: events are missing, list again."""

    cursor: Cursor


class Feed:
    """Serves watchers; lives inside `Engine`."""

    async def tail(self, cursor: Cursor | None = None) -> AsyncIterator[Event | Gap]:
        """Open a watcher; `async for item in await feed.tail(cursor)`.

        Args:
            cursor: Where to resume; None starts with the next event to come.

        Raises:
            CursorInvalid: The cursor is not one of ours.
            CursorExpired: Its events are no longer kept.
        """
        raise NotImplementedError

    async def now(self) -> Cursor:
        """Return the cursor of the newest event: list, then tail from here, and nothing is missed."""
        raise NotImplementedError
