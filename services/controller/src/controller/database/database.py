"""Reads and writes of the controller's database, whichever it is.

It owns the threads that use the connections and who is told of a commit. What differs between databases is
the backend's.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine

from controller.database.backend import Backend, Target
from controller.database.errors import DatabaseUnavailable, translate
from controller.database.postgresql import PostgresBackend
from controller.database.sqlite import SqliteBackend
from controller.database.writer import GroupCommit, Writer, call_on

T = TypeVar("T")


class Database:
    """An async context manager: exclusive where it must be and migrated inside, closed outside.

    Example:
        async with Database(path) as database:
            names = await database.read(lambda conn: conn.execute(select(t.c.name)).scalars().all())
    """

    def __init__(self, target: Target, options: Mapping[str, Any] | None = None) -> None:
        """Use the SQLite file of a path, or the PostgreSQL database of a URL.

        `options` are execution options that every connection has (`Connection.get_execution_options`).
        """
        self._target = target
        self._backend = backend_of(target)
        for engine in (self._backend.write_engine, self._backend.read_engine, self._backend.beat_engine):
            engine.update_execution_options(**options or {})
        self._readers: ThreadPoolExecutor | None = None
        self._heart: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None
        self._told: asyncio.Task[None] | None = None
        self._listeners: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._measure: Callable[[GroupCommit], None] | None = None

    async def __aenter__(self) -> Self:
        """Open, migrate, and listen to others.

        Raises:
            DatabaseInUse: If another controller holds the file.
            DatabaseTooNew: If a newer build migrated it.
            DatabaseError: If it cannot be opened.
        """
        await asyncio.to_thread(self._open)
        self._told = asyncio.create_task(self._backend.told_by_others(self._tell), name="database listener")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._told is not None:
            self._told.cancel()
            await asyncio.wait({self._told})
        await asyncio.to_thread(self._close)

    @property
    def target(self) -> Target:
        """What was opened."""
        return self._target

    @property
    def shared(self) -> bool:
        """Whether other controllers may be at work on the same database."""
        return self._backend.shared

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a write transaction on the writer's thread; return its result once it is durable.

        An exception of `work` rolls back what it wrote and is raised here. `work` must do nothing but use the
        connection: it is run again where the database says that another process came between. Cancelling the
        caller does not undo the write.

        Raises:
            DatabaseFull: The disk is full.
            DatabaseUnavailable: The database cannot be written at the moment. Where the connection broke
                while it was committing, the write may stand all the same.
        """
        if self._writer is None:
            raise DatabaseUnavailable("the database is closed")
        result: T = await self._writer.submit(work)
        return result

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one consistent snapshot, on a read-only connection in a thread.

        Raises:
            DatabaseUnavailable: The database cannot be read at the moment.
        """
        return await self._in_thread(self._readers, self._backend.read_engine, work)

    async def beat(self, work: Callable[[Connection], T]) -> T:
        """Run short `work` on a connection of its own, which waits behind no other transaction.

        Raises:
            DatabaseUnavailable: The database cannot be used at the moment.
        """
        return await self._in_thread(self._heart, self._backend.beat_engine, work)

    async def rewrite(self, tables: Sequence[str]) -> None:
        """Have the files hold what these tables hold now and nothing that they held before.

        To be asked while nothing else works on the database here.

        Raises:
            DatabaseFull: There is no room for a copy.
            DatabaseUnavailable: Somebody else is reading what was there before.
        """
        await asyncio.to_thread(self._rewrite, tables)

    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` on the running loop after every group of writes; the result unsubscribes it.

        Those of other processes count where the database is shared.
        """
        entry = (asyncio.get_running_loop(), listener)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry)

    def measure_commits(self, measure: Callable[[GroupCommit], None]) -> None:
        """Call `measure` on the writer's thread after every group of writes."""
        self._measure = measure

    @property
    def waiting_writes(self) -> int:
        """Length of the writer's queue."""
        return 0 if self._writer is None else self._writer.waiting

    @property
    def wal_bytes(self) -> int:
        """Size of the write-ahead log, where it is ours to watch; asks the file system."""
        return self._backend.log_bytes

    def _open(self) -> None:
        try:
            self._backend.open()
        except BaseException as exc:
            self._backend.close()
            if (translated := translate(exc)) is not None:
                raise translated from exc
            raise
        self._readers = ThreadPoolExecutor(self._backend.readers, thread_name_prefix="database-reader")
        self._heart = ThreadPoolExecutor(1, thread_name_prefix="database-heart")
        self._writer = Writer(self._backend, self._committed)
        self._writer.start()

    def _rewrite(self, tables: Sequence[str]) -> None:
        try:
            self._backend.rewrite(tables)
        except Exception as exc:
            if (translated := translate(exc)) is not None and translated is not exc:
                raise translated from exc
            raise

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.stop()
        for threads in (self._readers, self._heart):
            if threads is not None:
                threads.shutdown()
        self._writer = self._readers = self._heart = None
        self._backend.close()

    async def _in_thread(
        self, threads: ThreadPoolExecutor | None, engine: Engine, work: Callable[[Connection], T]
    ) -> T:
        if threads is None:
            raise DatabaseUnavailable("the database is closed")
        return await asyncio.get_running_loop().run_in_executor(
            threads, functools.partial(_transaction, engine, work)
        )

    def _committed(self, commit: GroupCommit) -> None:
        if self._measure is not None:
            self._measure(commit)
        self._tell()

    def _tell(self) -> None:
        for loop, listener in tuple(self._listeners):
            call_on(loop, listener)


def backend_of(target: Target) -> Backend:
    """Return the backend for a file or a URL; nothing is opened yet."""
    return SqliteBackend(target) if isinstance(target, Path) else PostgresBackend(target)


def _transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    try:
        with engine.connect() as conn, conn.begin():
            return work(conn)
    except Exception as exc:
        if (translated := translate(exc)) is not None and translated is not exc:
            raise translated from exc
        raise
