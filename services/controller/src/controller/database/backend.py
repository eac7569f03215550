"""What differs between the databases: connections, exclusiveness, being told of others' commits.

A backend owns its connections' settings and must never know what the tables mean.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from sqlalchemy import URL, Connection, Engine

Target = Path | URL


class Backend(Protocol):
    """One kind of database.

    Attributes:
        shared: Whether other controllers may be at work on the same database.
        readers: How many reads run at once.
        write_engine: One connection; a transaction of it sees and changes the database as if it were alone.
        read_engine: Connections that cannot write; a transaction of one sees a single snapshot.
        beat_engine: One connection for short statements that wait behind nothing else.
    """

    shared: bool
    readers: int
    write_engine: Engine
    read_engine: Engine
    beat_engine: Engine

    def open(self) -> None:
        """Take what exclusiveness needs and migrate. Blocks.

        Raises:
            DatabaseError: It cannot be opened.
        """

    def close(self) -> None:
        """Give everything back. Blocks."""

    def before_commit(self, conn: Connection) -> None:
        """Add to a write transaction what tells other processes of it."""

    def rewrite(self, tables: Sequence[str]) -> None:
        """Have nothing be left in the files of what these tables held before. Blocks; outside transactions.

        Raises:
            DatabaseUnavailable: A reader still needs it.
        """

    async def told_by_others(self, told: Callable[[], None]) -> None:
        """Call `told` when another process may have committed something, for ever."""

    @property
    def log_bytes(self) -> int:
        """Size of a write-ahead log that is ours to watch."""
