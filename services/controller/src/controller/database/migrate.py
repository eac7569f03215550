"""Bringing the schema up to this build's revision, from inside the program.

It owns Alembic's configuration; the revisions are in `controller.migrations`.
"""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

import controller
from controller.database.errors import DatabaseTooNew


def configuration() -> Config:
    """Return Alembic's configuration; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(controller.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(engine: Engine, lock: Callable[[Connection], None] | None = None) -> None:
    """Run every revision that is missing, all in one transaction that takes `lock` first. Blocks.

    Raises:
        DatabaseTooNew: If the database was migrated by a newer build.
    """
    config = configuration()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.connect() as conn, conn.begin():
        if lock is not None:
            lock(conn)
        current = set(MigrationContext.configure(conn).get_current_heads())
        if current - known:
            raise DatabaseTooNew(
                f"the database is at revision {sorted(current)}, which this build does not know"
            )
        config.attributes["connection"] = conn
        command.upgrade(config, "heads")
