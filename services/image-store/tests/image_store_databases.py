"""Databases for tests: a SQLite file, or one of a PostgreSQL server that is shared by all tests of a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from qcstack.postgresql import PostgresMissingError, PostgresServer, shared_server
from sqlalchemy import URL, make_url

# What must hold on every database takes its parameter from here.
KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


def server() -> PostgresServer:
    """Return the run's server; skip the test where PostgreSQL is not installed, but not in CI."""
    try:
        return shared_server()
    except PostgresMissingError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))


@contextmanager
def new_database(kind: str, folder: Path) -> Iterator[Path | URL]:
    """Provide what a new database of that kind is opened with."""
    if kind == "sqlite":
        yield folder / "image-store.db"
        return
    name = server().create_database()
    try:
        yield make_url(server().url(name))
    finally:
        server().drop_database(name)
