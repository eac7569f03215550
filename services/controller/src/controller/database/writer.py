"""The one thread that writes.

It owns the writing connection and every write transaction. Requests that wait together are committed
together, each in a savepoint of its own: one fsync for many (https://www.sqlite.org/lang_transaction.html).
What another process's transaction came between is run again.
"""

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from controller.database.backend import Backend
from controller.database.errors import (
    DatabaseConflict,
    DatabaseUnavailable,
    is_unique_violation,
    translate,
)

_log = logging.getLogger(__name__)

_GROUP_LIMIT = 64
_MOST_CONFLICTS = 20
_CONFLICT_PAUSE_S = 0.02


@dataclass(slots=True, eq=False)
class _Request:
    work: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Any]"
    queued_at: float
    result: Any = None
    error: BaseException | None = None

    def deliver(self) -> None:
        """Answer on the loop that asked."""
        call_on(self.loop, self._set)

    def _set(self) -> None:
        if self.answer.done():
            return
        if self.error is None:
            self.answer.set_result(self.result)
        else:
            self.answer.set_exception(self.error)


@dataclass(frozen=True, slots=True)
class GroupCommit:
    """Measure of one commit: how many requests shared it and how long it took from `BEGIN`, in seconds."""

    requests: int
    seconds: float


class Writer:
    """Runs requests one after another in a thread of its own."""

    def __init__(self, backend: Backend, committed: Callable[[GroupCommit], None]) -> None:
        self._backend = backend
        self._committed = committed
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="database-writer", daemon=True)
        self._accepting = False

    def start(self) -> None:
        """Start the thread."""
        self._accepting = True
        self._thread.start()

    def stop(self) -> None:
        """Refuse new requests, finish the queued ones and join the thread. Blocks."""
        self._accepting = False
        self._requests.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """How many requests are queued."""
        return self._requests.qsize()

    async def submit(self, work: Callable[[Connection], Any]) -> Any:
        """Run `work` in a write transaction and return its result after the commit.

        Cancelling the caller does not cancel the transaction.
        """
        if not self._accepting:
            raise DatabaseUnavailable("the database is closed")
        loop = asyncio.get_running_loop()
        request = _Request(work, loop, loop.create_future(), time.monotonic())
        self._requests.put(request)
        return await request.answer

    def _work(self) -> None:
        stopping = False
        while not stopping:
            group, stopping = self._next_group()
            if group:
                self._commit(group)

    def _next_group(self) -> tuple[list[_Request], bool]:
        group: list[_Request] = []
        request = self._requests.get()
        while request is not None:
            group.append(request)
            if len(group) == _GROUP_LIMIT:
                return group, False
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Request]) -> None:
        began = time.monotonic()
        self._carry_out(group)
        for request in group:
            if request.error is not None and is_unique_violation(request.error):
                # Another process may have taken the key after this one had looked: it looks again.
                self._carry_out([request])
        self._committed(GroupCommit(len(group), time.monotonic() - began))
        for request in group:
            request.deliver()

    def _carry_out(self, group: list[_Request]) -> None:
        try:
            self._through_conflicts(group)
        except BaseException as exc:  # noqa: BLE001 - the thread must outlive any commit
            for request in group:
                request.error = translate(exc) or exc

    def _through_conflicts(self, group: list[_Request]) -> None:
        for conflicts in range(1, _MOST_CONFLICTS + 1):
            try:
                return self._transaction(group)
            except DatabaseConflict:
                if conflicts == _MOST_CONFLICTS:
                    raise
                time.sleep(random.uniform(0, _CONFLICT_PAUSE_S))  # noqa: S311 - spreads rivals apart
        return None

    def _transaction(self, group: list[_Request]) -> None:
        for request in group:
            request.result = request.error = None
        try:
            with self._backend.write_engine.connect() as conn, conn.begin():
                for request in group:
                    _run_in_savepoint(conn, request)
                self._backend.before_commit(conn)
        except Exception as exc:
            if (translated := translate(exc)) is not None and translated is not exc:
                raise translated from exc
            raise


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call from a thread; when the loop is closed nobody listens any more, but the commit stands."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        _log.debug("nobody listens to a commit any more")


def _run_in_savepoint(conn: Connection, request: _Request) -> None:
    try:
        with conn.begin_nested():
            request.result = request.work(conn)
    except BaseException as exc:
        database_error = translate(exc)
        if database_error is exc:
            raise
        if database_error is not None:
            # SQLite may have rolled back the whole transaction: nothing of this group can be trusted.
            raise database_error from exc
        request.error = exc
