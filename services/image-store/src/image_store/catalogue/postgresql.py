"""PostgreSQL as the catalogue's database: connections, and the lock that keeps a second store off it.

The one session that writes holds an advisory lock for as long as it lives: whoever can write is alone, and
positions in the outbox are given out in the order of the commits.
"""

from typing import Any, Final

from sqlalchemy import URL, Engine, create_engine, event

from image_store.errors import StoreUnavailableError

# "qc-image" in ASCII: a number that no other user of the database takes.
_LOCK: Final = 0x7163_2D69_6D61_6765
_CONNECTION: Final = {
    "application_name": "qcontroller-image-store",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
}
_SESSION: Final = (
    "-c TimeZone=UTC -c idle_in_transaction_session_timeout=3s -c lock_timeout=3s -c statement_timeout=10s"
    " -c jit=off"
)
_SNAPSHOT: Final = r"-c default_transaction_isolation=repeatable\ read -c default_transaction_read_only=on"


def engine_of(url: URL, readers: int, *, read_only: bool) -> Engine:
    """Return an engine for reading, or the one for writing."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=readers if read_only else 1,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,
        connect_args={
            **{name: value for name, value in _CONNECTION.items() if name not in url.query},
            "options": f"{_SESSION} {_SNAPSHOT}" if read_only else _SESSION,
        },
    )
    if not read_only:
        event.listen(engine, "connect", _be_alone)
    return engine


def _be_alone(connection: Any, _record: object) -> None:
    """Hold the lock for as long as this session lives."""
    held = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
    connection.commit()
    if not held[0]:
        raise StoreUnavailableError("Another process has the database open.")
