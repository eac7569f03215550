"""PostgreSQL: one server, many controllers.

Write transactions are serializable: each sees and changes the database as if it were alone, whatever other
controllers do meanwhile; one that cannot is refused and run again by the writer
(https://www.postgresql.org/docs/current/transaction-iso.html#XACT-SERIALIZABLE). Every session has its
time-outs, so that a process that froze in the middle of a transaction holds nobody up for long.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Connection, Engine, create_engine, text

from controller.database.migrate import migrate

_log = logging.getLogger(__name__)

_READERS: Final = 4
_CHANNEL: Final = "qcontroller"
# Any number that no other user of the cluster takes: "qcontroll" in ASCII, cut to eight bytes.
_MIGRATION_LOCK: Final = 0x7163_6F6E_7472_6F6C
_RETRY_FIRST_S: Final = 0.1
_RETRY_MOST_S: Final = 5.0

# A dead peer is noticed by the kernel; these are ignored on unix sockets.
_CONNECTION: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
}
_SESSION: Final = {
    "TimeZone": "UTC",
    "idle_in_transaction_session_timeout": "3s",
    "lock_timeout": "3s",
    "statement_timeout": "10s",
    # Compiling a statement takes a hundred times as long as running it does; a plan that had to scan a table
    # although it should not looks costly enough for it.
    "jit": "off",
}
_SERIALIZABLE: Final = {
    "default_transaction_isolation": "serializable",
    # Rows that an index found are watched for conflicts one by one; a table that was scanned, as a whole.
    "enable_seqscan": "off",
}
_SNAPSHOT: Final = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
}
_NOTIFY: Final = text(
    f"SELECT pg_notify('{_CHANNEL}', '') WHERE pg_current_xact_id_if_assigned() IS NOT NULL"
)


class PostgresBackend:
    """A database that several controllers work on."""

    shared = True
    readers = _READERS

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        self.write_engine = _engine(self._url, 1, **_SERIALIZABLE)
        self.read_engine = _engine(self._url, _READERS, **_SNAPSHOT)
        self.beat_engine = _engine(self._url, 1, statement_timeout="2s", lock_timeout="2s")

    def open(self) -> None:
        # Migrations of several controllers that start together go one after the other and may take their
        # time.
        engine = _engine(self._url, 1, statement_timeout="0", lock_timeout="60s")
        try:
            migrate(engine, lock=_take_migration_lock)
        finally:
            engine.dispose()

    def close(self) -> None:
        for engine in (self.write_engine, self.read_engine, self.beat_engine):
            engine.dispose()

    def before_commit(self, conn: Connection) -> None:
        conn.execute(_NOTIFY)

    def rewrite(self, tables: Sequence[str]) -> None:
        # Other controllers wait for the table meanwhile, and it for them.
        engine = _engine(self._url, 1, statement_timeout="0", lock_timeout="10s")
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
                for table in tables:
                    # A new file; the old one is removed (https://www.postgresql.org/docs/current/sql-vacuum.html).
                    conn.exec_driver_sql(f'VACUUM (FULL) "{table}"')
        finally:
            engine.dispose()

    async def told_by_others(self, told: Callable[[], None]) -> None:
        failures = 0
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    _conninfo(self._url), autocommit=True
                ) as connection:
                    await connection.execute(f"LISTEN {_CHANNEL}")
                    failures = 0
                    # What was committed while nobody listened was not told.
                    told()
                    async for _ in connection.notifies():
                        told()
            except psycopg.Error as exc:
                _log.warning(
                    "listening to the database broke off", extra={"error": " ".join(str(exc).split())}
                )
            failures += 1
            await asyncio.sleep(min(_RETRY_MOST_S, _RETRY_FIRST_S * 2.0 ** min(failures - 1, 10)))

    @property
    def log_bytes(self) -> int:
        return 0


def _take_migration_lock(conn: Connection) -> None:
    conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


def _options(settings: dict[str, str]) -> str:
    """Return libpq's `options`, in which a space ends an argument unless a backslash stands before it."""
    escaped = {name: value.replace(" ", "\\ ") for name, value in settings.items()}
    return " ".join(f"-c {name}={value}" for name, value in escaped.items())


def _engine(url: URL, size: int, **settings: str) -> Engine:
    return create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=10,
        # A connection that the server has closed meanwhile is replaced, not found out by a statement.
        pool_pre_ping=True,
        connect_args={
            "application_name": "qcontroller",
            **{name: value for name, value in _CONNECTION.items() if name not in url.query},
            "options": _options({**_SESSION, **settings}),
        },
    )


def _conninfo(url: URL) -> str:
    named: dict[str, Any] = url.translate_connect_args(username="user", database="dbname")
    return make_conninfo("", **{**_CONNECTION, "application_name": "qcontroller", **named, **dict(url.query)})
