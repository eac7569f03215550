"""The controller's database, SQLite or PostgreSQL: one writer thread, a few readers, migrations.

It owns connections and transactions. It must never know what the tables mean.
"""

from controller.database.backend import Target
from controller.database.database import Database
from controller.database.errors import (
    DatabaseConflict,
    DatabaseError,
    DatabaseFull,
    DatabaseInUse,
    DatabaseTooNew,
    DatabaseUnavailable,
    DatabaseUnsupported,
    translate,
)
from controller.database.types import UtcDateTime
from controller.database.visibility import oldest_open_transaction, transaction_id

__all__ = [
    "Database",
    "DatabaseConflict",
    "DatabaseError",
    "DatabaseFull",
    "DatabaseInUse",
    "DatabaseTooNew",
    "DatabaseUnavailable",
    "DatabaseUnsupported",
    "Target",
    "UtcDateTime",
    "oldest_open_transaction",
    "transaction_id",
    "translate",
]
