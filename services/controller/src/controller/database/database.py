"""Reads and writes of the controller's SQLite file.

It owns the file's lock, its connections and their threads. Nothing else opens the file.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from controller.database.errors import DatabaseUnavailable, translate
from controller.database.lock import FileLock
from controller.database.migrate import migrate
from controller.database.writer import GroupCommit, Writer, call_on

T = TypeVar("T")

_READERS = 3
_BUSY_TIMEOUT_MS = 5000


class Database:
    """An async context manager: locked and migrated inside, closed outside.

    Example:
        async with Database(path) as database:
            names = await database.read(lambda conn: conn.execute(select(t.c.name)).scalars().all())
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path)
        self._write_engine = _sqlite_engine(path, read_only=False)
        self._read_engine = _sqlite_engine(path, read_only=True)
        self._threads: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None
        self._listeners: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._measure: Callable[[GroupCommit], None] | None = None

    async def __aenter__(self) -> Self:
        """Lock, migrate and open.

        Raises:
            DatabaseInUse: If another controller holds the file.
            DatabaseTooNew: If a newer build migrated it.
            DatabaseError: If it cannot be opened.
        """
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._close)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a write transaction on the writer's thread; return its result once it is durable.

        An exception of `work` rolls back what it wrote and is raised here. `work` must do nothing but use the
        connection. Cancelling the caller does not undo the write.

        Raises:
            DatabaseFull: The disk is full.
            DatabaseUnavailable: The database cannot be written at the moment.
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
        if self._threads is None:
            raise DatabaseUnavailable("the database is closed")
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, functools.partial(self._read, work)
        )

    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` on the running loop after every group of writes; the result unsubscribes it."""
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
        """Size of the write-ahead log; asks the file system."""
        wal = self._path.with_name(f"{self._path.name}-wal")
        return wal.stat().st_size if wal.exists() else 0

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            migrate(self._write_engine)
        except BaseException as exc:
            self._write_engine.dispose()
            self._lock.release()
            if (translated := translate(exc)) is not None:
                raise translated from exc
            raise
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="database-reader")
        self._writer = Writer(self._write_engine, self._committed)
        self._writer.start()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.stop()
        if self._threads is not None:
            self._threads.shutdown()
        self._writer = self._threads = None
        self._read_engine.dispose()
        self._write_engine.dispose()
        self._lock.release()

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._read_engine.connect() as conn, conn.begin():
                return work(conn)
        except Exception as exc:
            if (translated := translate(exc)) is not None:
                raise translated from exc
            raise

    def _committed(self, commit: GroupCommit) -> None:
        if self._measure is not None:
            self._measure(commit)
        for loop, listener in tuple(self._listeners):
            call_on(loop, listener)


def _sqlite_engine(path: Path, *, read_only: bool) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", poolclass=QueuePool, pool_size=_READERS if read_only else 1, max_overflow=0
    )

    def connected(dbapi_connection: Any, record: object) -> None:
        del record
        # The driver's own transactions are switched off: it would begin late and deferred (FACTS: Python
        # 3.11).
        dbapi_connection.isolation_level = None
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"query_only={'ON' if read_only else 'OFF'}",
        ):
            dbapi_connection.execute(f"PRAGMA {pragma}").close()

    def begun(conn: Connection) -> None:
        conn.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine
