"""The catalogue's database: its lock, the one thread that writes and the few that read.

It knows nothing of what the tables mean. Which kind of database it is, `sqlite` and `postgresql` know.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import alembic.command
import alembic.config
from sqlalchemy import URL, Connection, Engine

import image_store
from image_store.catalogue import postgresql, sqlite
from image_store.catalogue.database_errors import database_errors
from image_store.errors import StoreUnavailableError

T = TypeVar("T")

_READERS: Final = 2


@dataclass(frozen=True, slots=True)
class _Engines:
    write: Engine
    read: Engine


class Database:
    """An async context manager: locked and migrated inside, closed outside."""

    def __init__(self, target: Path | URL) -> None:
        """Use the SQLite file at a path, which is made if it is not there, or a PostgreSQL database."""
        self._target = target
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
            with database_errors():
                return work()

        return await asyncio.get_running_loop().run_in_executor(threads, translated)

    def _open(self) -> None:
        if isinstance(self._target, Path):
            self._lock = sqlite.lock_file(self._target)
        config = alembic.config.Config()
        config.set_main_option("script_location", str(Path(image_store.__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        self._engines = _Engines(
            _engine(self._target, read_only=False), _engine(self._target, read_only=True)
        )
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


def _engine(target: Path | URL, *, read_only: bool) -> Engine:
    if isinstance(target, Path):
        return sqlite.engine_of(target, _READERS, read_only=read_only)
    return postgresql.engine_of(target, _READERS, read_only=read_only)
