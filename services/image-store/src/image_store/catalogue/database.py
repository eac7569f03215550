"""The SQLite file: its lock, its connections, the one thread that writes and the few that read.

It knows nothing of what the tables mean. Errors of SQLite are translated here and nowhere else.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import alembic.command
import alembic.config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

import image_store
from image_store.errors import StoreFullError, StoreUnavailableError

T = TypeVar("T")

_READERS: Final = 2
_BUSY_TIMEOUT_MS: Final = 5_000
# https://www.sqlite.org/rescode.html
_FULL: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)
_STATEMENT_FAULTS: Final = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
)


@dataclass(frozen=True, slots=True)
class _Engines:
    write: Engine
    read: Engine


class Database:
    """An async context manager: locked and migrated inside, closed outside."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`, which is made if it is not there."""
        self._path = path
        self._lock = -1
        self._engines: _Engines | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="catalogue-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="catalogue-reader")
        self._listeners: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        """Take the lock and bring the schema up to this build.

        Raises:
            StoreUnavailableError: Another process has the database, or it cannot be opened.
        """
        try:
            await self._run(self._writer, self._open)
        except BaseException:
            await asyncio.to_thread(self._close)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._close)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a write transaction and return its result once it is durable.

        An exception of `work` rolls the transaction back. A caller that is cancelled does not stop it.

        Raises:
            StoreFullError: The disk is full.
            StoreUnavailableError: The database cannot be written now.
        """
        loop = asyncio.get_running_loop()

        def transaction() -> T:
            with self._opened().write.connect() as connection, connection.begin():
                result = work(connection)
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._announce)
            return result

        return await self._run(self._writer, transaction)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one consistent snapshot.

        Raises:
            StoreUnavailableError: The database cannot be read now.
        """

        def transaction() -> T:
            with self._opened().read.connect() as connection, connection.begin():
                return work(connection)

        return await self._run(self._readers, transaction)

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` on the loop after every write."""
        self._listeners.append(listener)

    def _announce(self) -> None:
        for listener in self._listeners:
            listener()

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        def translated() -> T:
            with _database_errors():
                return work()

        return await asyncio.get_running_loop().run_in_executor(threads, translated)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StoreUnavailableError(f"Another process has {self._path} open.") from exc
        config = alembic.config.Config()
        config.set_main_option("script_location", str(Path(image_store.__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        self._engines = _Engines(_engine(self._path, read_only=False), _engine(self._path, read_only=True))
        with self._engines.write.connect() as connection, connection.begin():
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    def _opened(self) -> "_Engines":
        if self._engines is None:
            raise StoreUnavailableError("The catalogue is closed.")
        return self._engines

    def _close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        if self._engines is not None:
            self._engines.read.dispose()
            self._engines.write.dispose()
            self._engines = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as exc:
        code = getattr(exc.orig, "sqlite_errorcode", None)
        if code is None or code & 0xFF in _STATEMENT_FAULTS:
            raise
        if code in _FULL:
            raise StoreFullError from exc
        raise StoreUnavailableError(f"The catalogue cannot be used: {exc.orig}.") from exc


def _engine(path: Path, *, read_only: bool) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", poolclass=QueuePool, pool_size=_READERS if read_only else 1, max_overflow=0
    )

    def connected(connection: Any, _record: object) -> None:
        # The driver's own transactions are off: they would begin late and deferred (Python 3.11).
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            # NORMAL can lose an acknowledged image at a power loss.
            "synchronous=FULL",
            "foreign_keys=ON",
            f"query_only={'ON' if read_only else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine
