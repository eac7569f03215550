"""What can be wrong with the database itself, never with what was asked of it.

    DatabaseError
    ├── DatabaseFull          the disk is full: reads go on, writes are refused
    ├── DatabaseUnavailable   locked, unreadable, unreachable or failing: may pass
    │   └── DatabaseConflict  another process's transaction came between: to be tried again
    ├── DatabaseInUse         another process holds the file
    ├── DatabaseUnsupported   the file lies where its locks do not work
    └── DatabaseTooNew        written by a newer build

Errors of the statement (a violated constraint, wrong SQL) stay SQLAlchemy's.
"""

# ruff: noqa: N818 - the names say what happened, as the tree above reads

import sqlite3

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class DatabaseError(Exception):
    """The database could not do its part; says nothing about the request."""


class DatabaseFull(DatabaseError):
    """No space is left for a write."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be used at the moment."""


class DatabaseConflict(DatabaseUnavailable):
    """A transaction of another process and this one cannot both stand; nothing of this one does."""


class DatabaseInUse(DatabaseError):
    """Another process holds the database file."""


class DatabaseUnsupported(DatabaseError):
    """The file system does not give SQLite the locks it needs."""


class DatabaseTooNew(DatabaseError):
    """A newer build has migrated this database; this one would misread it."""


_FULL = {sqlite3.SQLITE_FULL}
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
}
_ENOSPC_IS_IOERR = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_SHMSIZE}

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PG_FULL = "53100"
# Serialization failure, deadlock.
_PG_CONFLICT = {"40001", "40P01"}
# Classes: connection, authorization, catalog name (the database), resources, operator, system.
_PG_UNAVAILABLE_CLASSES = {"08", "28", "3D", "53", "57", "58"}
# A read-only server, both time-outs of idle sessions, a lock not had in time.
_PG_UNAVAILABLE = {"25006", "25P03", "25P04", "55P03"}


def translate(error: BaseException) -> DatabaseError | None:
    """Return the typed error for what a database or its driver raised, or None for the statement's own fault.

    Source: https://www.sqlite.org/rescode.html; the low byte is the primary code.
    """
    if isinstance(error, DatabaseError):
        return error
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailable("no connection to the database was free in time")
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, psycopg.Error):
        return _of_postgresql(original)
    code = getattr(original, "sqlite_errorcode", None)
    if not isinstance(original, sqlite3.Error) or code is None:
        return None
    if code & 0xFF in _FULL:
        return DatabaseFull(str(original))
    if code in _ENOSPC_IS_IOERR:
        return DatabaseFull(f"writing failed: {original}")
    if code & 0xFF in _UNAVAILABLE:
        return DatabaseUnavailable(str(original))
    return None


def _of_postgresql(error: psycopg.Error) -> DatabaseError | None:
    code = error.sqlstate
    text = " ".join(str(error).split())
    if code is None:
        # What the client library says of a connection that could not be made or broke has no code.
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return DatabaseUnavailable(text) if lost else None
    if code == _PG_FULL:
        return DatabaseFull(text)
    if code in _PG_CONFLICT:
        return DatabaseConflict(text)
    if code in _PG_UNAVAILABLE or code[:2] in _PG_UNAVAILABLE_CLASSES:
        return DatabaseUnavailable(text)
    return None


def is_unique_violation(error: BaseException) -> bool:
    """Tell whether a PostgreSQL row was refused since its key is taken."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(original, psycopg.errors.UniqueViolation)
