"""SQLite: one file, one process.

It owns the file's lock and the pragmas. Nothing else opens the file.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from controller.database.errors import DatabaseUnavailable
from controller.database.lock import FileLock
from controller.database.migrate import migrate

_READERS: Final = 3
_BUSY_TIMEOUT_MS: Final = 5000


class SqliteBackend:
    """A file that this process alone works on."""

    shared = False
    readers = _READERS

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path)
        self.write_engine = _engine(path, read_only=False)
        self.read_engine = _engine(path, read_only=True)
        self.beat_engine = self.read_engine

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        migrate(self.write_engine)

    def close(self) -> None:
        self.read_engine.dispose()
        self.write_engine.dispose()
        self._lock.release()

    def before_commit(self, conn: Connection) -> None:
        del conn

    def rewrite(self, tables: Sequence[str]) -> None:
        # The whole file, since pages that were freed long ago belong to no table.
        del tables
        connection = self.write_engine.raw_connection()
        try:
            cursor = connection.cursor()
            # Beside the file, where there is room for a copy; /tmp may be small. The directory is the
            # process's own until it is said otherwise.
            cursor.execute(f"PRAGMA temp_store_directory='{_quoted(self._path.parent)}'")
            cursor.execute("VACUUM")
            (busy, _, _) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            cursor.close()
        finally:
            connection.close()
        if busy:
            raise DatabaseUnavailable("the log of the database is still being read")

    async def told_by_others(self, told: Callable[[], None]) -> None:
        del told
        await asyncio.get_running_loop().create_future()

    @property
    def log_bytes(self) -> int:
        wal = self._path.with_name(f"{self._path.name}-wal")
        return wal.stat().st_size if wal.exists() else 0


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _engine(path: Path, *, read_only: bool) -> Engine:
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
