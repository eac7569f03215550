"""SQLite as the catalogue's database: its connections, and the lock that keeps others off the file."""

import fcntl
import os
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from image_store.errors import StoreUnavailableError

_BUSY_TIMEOUT_MS: Final = 5_000


def lock_file(path: Path) -> int:
    """Return a descriptor that holds the lock of the database at `path` until it is closed.

    Raises:
        StoreUnavailableError: Another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise StoreUnavailableError(f"Another process has {path} open.") from exc
    return lock


def engine_of(path: Path, readers: int, *, read_only: bool) -> Engine:
    """Return an engine for reading, or the one for writing."""
    engine = create_engine(
        f"sqlite:///{path}", poolclass=QueuePool, pool_size=readers if read_only else 1, max_overflow=0
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
