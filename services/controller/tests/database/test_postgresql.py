"""What only PostgreSQL does: several processes, servers that go away, passwords."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from controller.database import (
    Database,
    DatabaseConflict,
    DatabaseFull,
    DatabaseUnavailable,
    translate,
)
from controller.operations.rows import metadata
from controller.settings import parse_settings
from controller_databases import empty_database, server
from qcontroller.settings.v1.settings_pb2 import ControllerSettings, RunnerEndpoint
from qcstack.postgresql import PostgresServer
from servicekit.settings import SettingsError
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import IntegrityError, OperationalError

postgres = pytest.mark.postgres


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    """One database, opened by two."""
    with empty_database("postgresql", tmp_path) as target:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(Database(target))
            second = await stack.enter_async_context(Database(target))
            await first.write(lambda conn: conn.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)")))
            yield first, second


def numbers(conn: Connection) -> list[int]:
    return list(conn.execute(text("SELECT n FROM t ORDER BY n")).scalars())


@postgres
async def test_two_open_one_database_and_see_each_other(two: tuple[Database, Database]) -> None:
    first, second = two
    await first.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (1)")))
    assert await second.read(numbers) == [1]


@postgres
async def test_a_commit_of_one_is_told_to_the_other(two: tuple[Database, Database]) -> None:
    first, second = two
    told = asyncio.Event()
    second.on_commit(told.set)
    await first.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (1)")))
    await asyncio.wait_for(told.wait(), 30)


@postgres
async def test_what_two_looked_for_and_then_wrote_at_once_stands_once(
    two: tuple[Database, Database],
) -> None:
    """Both see no row before either has written one: the loser looks again."""
    first, second = two
    both_looked = threading.Barrier(2)
    waited: set[int] = set()

    def add_the_only_one(number: int, conn: Connection) -> bool:
        found = numbers(conn)
        if number not in waited:
            waited.add(number)
            both_looked.wait(30)
        if found:
            return False
        conn.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
        return True

    added = await asyncio.gather(
        first.write(lambda conn: add_the_only_one(1, conn)),
        second.write(lambda conn: add_the_only_one(2, conn)),
    )
    assert sorted(added) == [False, True]
    assert len(await first.read(numbers)) == 1


@postgres
async def test_a_key_that_is_taken_is_still_the_statements_error(two: tuple[Database, Database]) -> None:
    first, _ = two
    with pytest.raises(IntegrityError):
        await first.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (1), (1)")))


@postgres
async def test_a_reader_cannot_write(two: tuple[Database, Database]) -> None:
    with pytest.raises(DatabaseUnavailable):
        await two[0].read(lambda conn: conn.execute(text("INSERT INTO t VALUES (1)")))


@postgres
async def test_connections_that_were_ended_are_replaced(two: tuple[Database, Database]) -> None:
    first, second = two
    await first.write(numbers)
    assert not isinstance(first.target, Path)
    await asyncio.to_thread(server().end_connections, first.target.database or "")
    assert await first.write(numbers) == []
    assert await second.read(numbers) == []


@postgres
async def test_a_server_that_comes_back_is_used_again() -> None:
    with PostgresServer() as own:
        async with Database(make_url(own.url(own.create_database()))) as database:
            await asyncio.to_thread(own.stop)
            for call in (database.write, database.read, database.beat):
                with pytest.raises(DatabaseUnavailable):
                    await call(lambda conn: conn.execute(text("SELECT 1")))
            await asyncio.to_thread(own.start)
            assert await database.write(lambda conn: conn.execute(text("SELECT 1")).scalar_one()) == 1
            assert await database.read(lambda conn: conn.execute(text("SELECT 1")).scalar_one()) == 1


@postgres
@pytest.mark.parametrize(
    ("password", "name", "why"),
    [
        ("right", "no_such_database", 'database "no_such_database" does not exist'),
        ("wrong", "postgres", "password authentication failed"),
    ],
)
async def test_what_cannot_be_opened_is_told_in_the_servers_words_and_without_the_password(
    password: str, name: str, why: str
) -> None:
    if server().execute(psycopg.sql.SQL("SELECT 1 FROM pg_roles WHERE rolname = 'guarded'")) == []:
        server().create_user("guarded", "right")
    with pytest.raises(DatabaseUnavailable, match=why) as told:
        async with Database(make_url(server().url(name, "guarded", password))):
            pass
    assert password not in str(told.value).replace(why, "")


@postgres
async def test_nobody_at_the_address_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="No such file"):
        async with Database(make_url(f"postgresql://q@/q?host={tmp_path}")):
            pass


@postgres
async def test_the_migrations_make_the_tables_that_the_queries_use(tmp_path: Path) -> None:
    with empty_database("postgresql", tmp_path) as target:
        async with Database(target) as database:
            difference = await database.write(
                lambda conn: [
                    entry
                    for entry in compare_metadata(MigrationContext.configure(conn), metadata)
                    if any(f"'{name}'" in repr(entry) for name in metadata.tables)
                ]
            )
    assert difference == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.errors.DiskFull, DatabaseFull),
        (psycopg.errors.SerializationFailure, DatabaseConflict),
        (psycopg.errors.DeadlockDetected, DatabaseConflict),
        (psycopg.errors.AdminShutdown, DatabaseUnavailable),
        (psycopg.errors.LockNotAvailable, DatabaseUnavailable),
        (psycopg.errors.QueryCanceled, DatabaseUnavailable),
        (psycopg.errors.IdleInTransactionSessionTimeout, DatabaseUnavailable),
        (psycopg.errors.ReadOnlySqlTransaction, DatabaseUnavailable),
        (psycopg.OperationalError, DatabaseUnavailable),
        (psycopg.errors.UniqueViolation, type(None)),
        (psycopg.errors.SyntaxError, type(None)),
    ],
)
def test_codes_of_postgresql_become_typed_errors(error: type[psycopg.Error], expected: type) -> None:
    assert type(translate(OperationalError("s", {}, error("x")))) is expected


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://host/db", "postgresql://host", "postgresql://h:port/d"]
)
def test_a_url_that_names_no_database_is_refused_without_being_repeated(url: str) -> None:
    message = ControllerSettings(
        listen=["unix:/x"],
        image_store="unix:/y",
        database_url=url,
        runners=[RunnerEndpoint(node="node-1", target="unix:/z")],
    )
    with pytest.raises(SettingsError, match="databaseUrl") as told:
        parse_settings(message)
    assert "mysql" not in str(told.value)
