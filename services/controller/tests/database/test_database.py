import asyncio
import io
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from controller.database import (
    Database,
    DatabaseFull,
    DatabaseInUse,
    DatabaseTooNew,
    DatabaseUnavailable,
    translate,
)
from controller.database.lock import file_system_type
from controller.database.migrate import configuration
from controller.database.writer import GroupCommit
from controller.operations.rows import metadata
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "state" / "controller.db") as opened:
        await opened.write(lambda conn: conn.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)")))
        yield opened


def numbers(conn: Connection) -> list[int]:
    return list(conn.execute(text("SELECT n FROM t ORDER BY n")).scalars())


async def test_what_was_written_is_read(database: Database) -> None:
    await database.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (1)")))
    assert await database.read(numbers) == [1]


async def test_an_error_rolls_back_its_own_write_only(database: Database) -> None:
    def fails(conn: Connection) -> None:
        conn.execute(text("INSERT INTO t VALUES (2)"))
        raise KeyError

    results = await asyncio.gather(
        database.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (1)"))),
        database.write(fails),
        database.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (3)"))),
        return_exceptions=True,
    )
    assert isinstance(results[1], KeyError)
    assert await database.read(numbers) == [1, 3]


async def test_writes_that_wait_together_are_committed_together(database: Database) -> None:
    commits: list[GroupCommit] = []
    database.measure_commits(commits.append)
    entered, leave = threading.Event(), threading.Event()

    def slow(conn: Connection) -> None:
        entered.set()
        leave.wait(10)

    first = asyncio.ensure_future(database.write(slow))
    await asyncio.to_thread(entered.wait, 10)
    others = [asyncio.ensure_future(database.write(numbers)) for _ in range(10)]
    await asyncio.to_thread(lambda: None)
    leave.set()
    await asyncio.gather(first, *others)
    assert [commit.requests for commit in commits][:2] == [1, 10]


async def test_a_violated_constraint_stays_the_statements_error(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await database.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (1), (1)")))


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await database.read(lambda conn: conn.execute(text("INSERT INTO t VALUES (1)")))


async def test_a_full_disk_is_told_as_such_and_reads_go_on(database: Database) -> None:
    def fill(conn: Connection) -> None:
        pages = conn.execute(text("PRAGMA page_count")).scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        conn.execute(text("CREATE TABLE big (b BLOB)"))
        conn.execute(text("INSERT INTO big VALUES (zeroblob(1000000))"))

    with pytest.raises(DatabaseFull):
        await database.write(fill)
    assert await database.read(numbers) == []


async def test_writing_goes_on_after_a_full_disk(database: Database) -> None:
    await test_a_full_disk_is_told_as_such_and_reads_go_on(database)
    await database.write(lambda conn: conn.exec_driver_sql("PRAGMA max_page_count=1000000"))
    await database.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (1)")))
    assert await database.read(numbers) == [1]


async def test_a_cancelled_caller_does_not_stop_the_write(database: Database) -> None:
    caller = asyncio.ensure_future(
        database.write(lambda conn: conn.execute(text("INSERT INTO t VALUES (1)")))
    )
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait({caller})
    await database.write(lambda conn: None)
    assert await database.read(numbers) == [1]


async def test_a_second_opener_is_refused(database: Database) -> None:
    with pytest.raises(DatabaseInUse):
        async with Database(database.target):
            pass


async def test_closing_gives_the_file_to_the_next(tmp_path: Path) -> None:
    for _ in range(2):
        async with Database(tmp_path / "controller.db") as database:
            await database.read(lambda conn: None)


async def test_a_closed_database_is_unavailable(tmp_path: Path) -> None:
    async with Database(tmp_path / "controller.db") as database:
        pass
    with pytest.raises(DatabaseUnavailable):
        await database.write(lambda conn: None)
    with pytest.raises(DatabaseUnavailable):
        await database.read(lambda conn: None)


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "controller.db").write_text("not a database, but long enough to look like one" * 100)
    with pytest.raises(DatabaseUnavailable):
        async with Database(tmp_path / "controller.db"):
            pass


async def test_a_database_of_a_newer_build_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "controller.db"
    async with Database(path) as database:
        await database.write(
            lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        )
    with pytest.raises(DatabaseTooNew):
        async with Database(path):
            pass


async def test_writes_are_durable_and_logged_ahead(database: Database) -> None:
    def pragmas(conn: Connection) -> tuple[object, object]:
        return tuple(
            conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("synchronous", "journal_mode")
        )

    assert await database.write(pragmas) == (2, "wal")


async def test_the_migrations_make_the_tables_that_the_queries_use(database: Database) -> None:
    def differences(conn: Connection) -> list[object]:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        names = set(metadata.tables)
        found = compare_metadata(context, metadata)
        # Only what concerns our tables: others have metadata of their own.
        return [entry for entry in found if any(f"'{name}'" in repr(entry) for name in names)]

    assert await database.write(differences) == []


def test_the_migrations_can_be_rendered_for_postgresql() -> None:
    """The schema is portable: not a statement of it is SQLite's own."""
    text_of = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": text_of}
    )
    scripts = ScriptDirectory.from_config(configuration())
    with Operations.context(context):
        for revision in reversed(list(scripts.walk_revisions())):
            revision.module.upgrade()
    rendered = text_of.getvalue()
    assert "seq BIGSERIAL NOT NULL" in rendered
    assert "CREATE UNIQUE INDEX uq_operations_active ON operations (subject) WHERE state IN" in rendered
    assert "not_before TIMESTAMP WITH TIME ZONE NOT NULL" in rendered
    assert "AUTOINCREMENT" not in rendered


async def test_each_database_has_an_epoch_of_its_own(tmp_path: Path) -> None:
    epochs = set()
    for name in ("one.db", "two.db"):
        async with Database(tmp_path / name) as database:
            epochs.add(
                await database.read(lambda conn: conn.execute(text("SELECT db_epoch FROM meta")).scalar())
            )
    assert len(epochs) == 2


def test_a_network_file_system_is_recognised_by_its_mount() -> None:
    mountinfo = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / /srv/net rw shared:1 - nfs4 host:/x rw\n"
    assert file_system_type(Path("/srv/net/state"), mountinfo) == "nfs4"
    assert file_system_type(Path("/srv/network"), mountinfo) == "ext4"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, DatabaseFull),
        (sqlite3.SQLITE_IOERR_WRITE, DatabaseFull),
        (sqlite3.SQLITE_BUSY, DatabaseUnavailable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, DatabaseUnavailable),
        (sqlite3.SQLITE_IOERR_READ, DatabaseUnavailable),
        (sqlite3.SQLITE_ERROR, type(None)),
    ],
)
def test_codes_of_sqlite_become_typed_errors(code: int, expected: type) -> None:
    original = sqlite3.OperationalError("x")
    original.sqlite_errorcode = code
    assert type(translate(OperationalError("s", {}, original))) is expected
