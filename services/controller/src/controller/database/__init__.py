"""The controller's database: one writer thread, a few readers, migrations.

It owns connections and transactions. It must never know what the tables mean.
"""

from controller.database.database import Database
from controller.database.errors import (
    DatabaseError,
    DatabaseFull,
    DatabaseInUse,
    DatabaseTooNew,
    DatabaseUnavailable,
    DatabaseUnsupported,
    translate,
)
from controller.database.types import UtcDateTime

__all__ = [
    "Database",
    "DatabaseError",
    "DatabaseFull",
    "DatabaseInUse",
    "DatabaseTooNew",
    "DatabaseUnavailable",
    "DatabaseUnsupported",
    "UtcDateTime",
    "translate",
]
