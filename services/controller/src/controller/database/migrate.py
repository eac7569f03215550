"""Bringing the schema up to this build's revision, from inside the program.

It owns Alembic's configuration; the revisions are in `controller.migrations`.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

import controller
from controller.database.errors import DatabaseTooNew


def configuration() -> Config:
    """Return Alembic's configuration; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(controller.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(engine: Engine) -> None:
    """Run every revision that is missing, all in one transaction. Blocks.

    Raises:
        DatabaseTooNew: If the file was migrated by a newer build.
    """
    config = configuration()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.connect() as conn, conn.begin():
        current = set(MigrationContext.configure(conn).get_current_heads())
        if current - known:
            raise DatabaseTooNew(
                f"the database is at revision {sorted(current)}, which this build does not know"
            )
        config.attributes["connection"] = conn
        command.upgrade(config, "heads")
