"""The event feed: replays the outbox from a cursor, then goes on as changes are committed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from image_store.catalogue.database import Database
from image_store.catalogue.outbox import StoredEvent, events_after, position_of
from image_store.errors import StoreUnavailableError

_BATCH: Final = 200


class Feed:
    """Serves any number of watchers; nothing polls."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closed = False
        self._stirred = asyncio.Event()
        database.on_commit(self._stir)

    def close(self) -> None:
        """End all watchers: an open stream would hold up the stop of the server."""
        self._closed = True
        self._stir()

    async def watch(self, cursor: str) -> AsyncIterator[StoredEvent]:
        """Yield the events behind `cursor` ("": from the oldest) for as long as the caller listens.

        Raises:
            CursorInvalidError: It is no cursor.
            CursorExpiredError: The events behind it are gone, also while the caller listens too slowly.
            StoreUnavailableError: The store stops.
        """
        position = await self._database.read(lambda connection: position_of(connection, cursor))
        while not self._closed:
            # Taken before the read: a commit that the read misses sets it.
            stirred = self._stirred
            events = await self._after(position)
            for event in events:
                position = event.seq
                yield event
            if not events:
                await stirred.wait()
        raise StoreUnavailableError("The image store stops.")

    async def _after(self, position: int) -> list[StoredEvent]:
        return await self._database.read(lambda connection: events_after(connection, position, _BATCH))

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = asyncio.Event()
