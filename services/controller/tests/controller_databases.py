"""Databases for tests: a SQLite file, or one of a PostgreSQL server that is shared by all tests of a run."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from controller.database import Target
from controller.database.database import backend_of
from qcstack.postgresql import PostgresMissingError, PostgresServer, shared_server
from sqlalchemy import make_url

# The suites that must hold on every database take their parameter from here.
KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]

# And those that are long take it from here.
FULLY = ["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgres, pytest.mark.full])]


def server() -> PostgresServer:
    """Return the run's server; skip the test where PostgreSQL is not installed, but not in CI."""
    try:
        return shared_server()
    except PostgresMissingError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))


@functools.cache
def _migrated() -> str:
    """Return the name of a database that has all tables and nobody connected."""
    name = server().create_database(prefix="template")
    backend = backend_of(make_url(server().url(name)))
    backend.open()
    backend.close()
    return name


@contextmanager
def empty_database(kind: str, folder: Path) -> Iterator[Target]:
    """Provide what a database of that kind can be opened with; its tables may be made already."""
    if kind == "sqlite":
        yield folder / "controller.db"
        return
    name = server().create_database(_migrated())
    try:
        yield make_url(server().url(name))
    finally:
        server().drop_database(name)


def is_postgresql(target: Target) -> bool:
    """Tell which kind it is."""
    return not isinstance(target, Path)
