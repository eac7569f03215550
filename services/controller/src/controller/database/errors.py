"""What can be wrong with the database itself, never with what was asked of it.

    DatabaseError
    ├── DatabaseFull          the disk is full: reads go on, writes are refused
    ├── DatabaseUnavailable   locked, unreadable or failing: may pass
    ├── DatabaseInUse         another process holds the file
    ├── DatabaseUnsupported   the file lies where its locks do not work
    └── DatabaseTooNew        written by a newer build

Errors of the statement (a violated constraint, wrong SQL) stay SQLAlchemy's.
"""

# ruff: noqa: N818 - the names say what happened, as the tree above reads

import sqlite3

from sqlalchemy.exc import DBAPIError


class DatabaseError(Exception):
    """The database could not do its part; says nothing about the request."""


class DatabaseFull(DatabaseError):
    """No space is left for a write."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be used at the moment."""


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


def translate(error: BaseException) -> DatabaseError | None:
    """Return the typed error for what SQLite or its driver raised, or None for the statement's own fault.

    Source: https://www.sqlite.org/rescode.html; the low byte is the primary code.
    """
    original = error.orig if isinstance(error, DBAPIError) else error
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
