"""What databases and their drivers raise, told apart: the disk is full, the database is away, or we erred."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from image_store.errors import StoreFullError, StoreUnavailableError

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
# https://www.postgresql.org/docs/current/errcodes-appendix.html: syntax and names, data, constraints.
_PG_FULL: Final = "53100"
_PG_STATEMENT_FAULTS: Final = frozenset({"22", "23", "42"})


@contextmanager
def database_errors() -> Iterator[None]:
    """Raise the store's own errors for those of the database.

    Raises:
        StoreFullError: The disk is full.
        StoreUnavailableError: The database cannot be used now.
    """
    try:
        yield
    except PoolTimeoutError as exc:
        raise StoreUnavailableError("The catalogue is busy.") from exc
    except DBAPIError as exc:
        if isinstance(exc.orig, psycopg.Error):
            _raise_of_postgresql(exc, exc.orig)
        code = getattr(exc.orig, "sqlite_errorcode", None)
        if code is None or code & 0xFF in _STATEMENT_FAULTS:
            raise
        if code in _FULL:
            raise StoreFullError from exc
        raise StoreUnavailableError(f"The catalogue cannot be used: {exc.orig}.") from exc


def _raise_of_postgresql(error: DBAPIError, original: psycopg.Error) -> None:
    code = original.sqlstate
    if code == _PG_FULL:
        raise StoreFullError from error
    if code is not None and code[:2] in _PG_STATEMENT_FAULTS:
        return
    text = " ".join(str(original).split())
    raise StoreUnavailableError(f"The catalogue cannot be used: {text}.") from error
