"""Taking the image store's outbox into the one event log, from a durable cursor.

Every controller does; what another one has taken over in the meantime is not taken over again.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from controller.database import Database
from controller.errors import PeerError, PeerRefused
from controller.operations import Clock, Outbox
from controller.ports import ImageEvent, ImageStore
from controller.records.peer_cursor_rows import cursor_of, set_cursor

_log = logging.getLogger(__name__)

_PEER: Final = "image-store"
_FIRST_WAIT_S: Final = 0.1
_MOST_WAIT_S: Final = 2.0
_LOST_CURSOR: Final = frozenset({"CURSOR_INVALID", "CURSOR_EXPIRED"})


class ImageFeed:
    """Follows the store."""

    def __init__(self, database: Database, store: ImageStore, outbox: Outbox, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._wait_s = _FIRST_WAIT_S
        self.up = False
        self.since: datetime = clock.now()
        self.detail = "Not reached yet."

    async def run(self) -> None:
        """Follow and follow again, for ever."""
        while True:
            try:
                if await self._follow():
                    # Another controller was faster: from where it is.
                    continue
                self._stands(up=False, detail="The store has ended its stream.")
            except PeerError as exc:
                self._stands(up=False, detail=exc.message)
                if isinstance(exc, PeerRefused) and exc.reason in _LOST_CURSOR:
                    # The store began anew, or we were away too long: go on with what it still has.
                    _log.warning("image events were lost", extra={"reason": exc.reason})
                    await self._write(lambda conn: set_cursor(conn, _PEER, ""))
            except Exception:  # noqa: BLE001 - loops go on, logged
                _log.exception("following the image store failed")
            await self._clock.sleep(self._wait_s)
            self._wait_s = min(2 * self._wait_s, _MOST_WAIT_S)

    async def _follow(self) -> bool:
        """Follow until the stream ends; return whether it is another controller that ended it."""
        cursor = await self._database.read(lambda conn: cursor_of(conn, _PEER))
        await self._store.ping()
        self._stands(up=True, detail="")
        self._wait_s = _FIRST_WAIT_S
        async for event in self._store.watch(cursor):
            if not await self._take(event, cursor):
                return True
            cursor = event.cursor
        return False

    async def _take(self, event: ImageEvent, after: str) -> bool:
        """Take an event over, unless the log has moved on from the one before it."""

        def work(conn: Connection) -> bool:
            if cursor_of(conn, _PEER) != after:
                return False
            self._outbox.append(conn, event.type, None, None, {"resource": dict(event.resource)})
            set_cursor(conn, _PEER, event.cursor)
            return True

        return await self._database.write(work)

    async def _write(self, work: Callable[[Connection], None]) -> None:
        try:
            await self._database.write(work)
        except Exception:  # noqa: BLE001 - loops go on, logged
            _log.exception("the cursor could not be written")

    def _stands(self, *, up: bool, detail: str) -> None:
        if up is not self.up:
            self.since = self._clock.now()
        self.up, self.detail = up, detail
