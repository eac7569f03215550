"""Columns that hold secrets, sealed by the keys of the database's connection, and sealed anew.

Each such table has a column `key_id`: the id of the key that sealed the row, empty for a plain one. A value
is bound to what it belongs to and to its column. The keys come with the connection, as they would with a
database that encrypts itself: no caller handles them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Connection, LargeBinary, Row, Table, select, update

from controller.errors import SecretUnreadable
from controller.operations.rows import meta
from controller.records.keyring import PLAIN, Keyring
from controller.records.schema import image_sources, instance_secrets, instance_secrets_wanted

_log = logging.getLogger(__name__)

# Execution option of the database's engines.
KEYRING: Final = "qcontroller_keyring"
_NO_KEYS: Final = Keyring()


@dataclass(frozen=True, slots=True)
class SealedTable:
    """A table with secrets.

    Attributes:
        kind: What its rows belong to; tables of one kind hold the same columns and may pass rows on.
    """

    table: Table
    kind: str

    @property
    def owner(self) -> Column[Any]:
        """The column that says what a row belongs to: the primary key."""
        (column,) = self.table.primary_key.columns
        return column

    @property
    def secrets(self) -> tuple[Column[Any], ...]:
        """The columns that are sealed."""
        return tuple(column for column in self.table.columns if isinstance(column.type, LargeBinary))

    def place(self, owner: str, column: str) -> str:
        """Return what a value is bound to."""
        return f"{self.kind} {owner} {column}"


INSTANCE_SECRETS: Final = SealedTable(instance_secrets, "instance")
WANTED_SECRETS: Final = SealedTable(instance_secrets_wanted, "instance")
IMAGE_SOURCES: Final = SealedTable(image_sources, "image source")
TABLES: Final = (INSTANCE_SECRETS, WANTED_SECRETS, IMAGE_SOURCES)


def sealed(conn: Connection, table: SealedTable, owner: str, secrets: Mapping[str, bytes]) -> dict[str, Any]:
    """Return a row of `table` with these columns sealed, to be inserted; a plain one is noted."""
    keys = _keys(conn)
    if keys.sealing_id == PLAIN:
        note_old_remains(conn)
    values = {name: keys.seal(value, table.place(owner, name)) for name, value in secrets.items()}
    return {table.owner.name: owner, **values, "key_id": keys.sealing_id}


def opened(conn: Connection, table: SealedTable, row: Row[Any]) -> dict[str, bytes]:
    """Return the secret columns of a row of `table`; those that hold nothing are left out.

    Raises:
        SecretUnreadable: No key of ours opens it, or it is not what was stored here.
    """
    keys = _keys(conn)
    found = row._mapping  # noqa: SLF001 - the documented way to a row's columns by name
    owner = found[table.owner.name]
    return {
        column.name: keys.open(bytes(found[column.name]), table.place(owner, column.name), found["key_id"])
        for column in table.secrets
        if found[column.name] is not None
    }


def key_ids(conn: Connection, table: SealedTable) -> set[str]:
    """Return under which keys there are rows."""
    return set(conn.execute(select(table.table.c.key_id).distinct()).scalars())


def seal_anew(conn: Connection, table: SealedTable, sealed_by: str, after: str, most: int) -> str | None:
    """Seal up to `most` rows under `sealed_by` that follow `after` by today's key; return the last owner.

    None when there are no more. A row that does not open is told of and stays as it is. What was sealed anew
    is noted in the same transaction as still being in the database's files.
    """
    wanted = (
        select(table.table)
        .where(table.table.c.key_id == sealed_by, table.owner > after)
        .order_by(table.owner)
        .limit(most)
    )
    last = None
    for row in conn.execute(wanted).all():
        last = str(row._mapping[table.owner.name])  # noqa: SLF001 - as above
        try:
            values = sealed(conn, table, last, opened(conn, table, row))
        except SecretUnreadable as exc:
            _log.error("a secret cannot be sealed anew", extra={"table": table.table.name, "error": str(exc)})
            continue
        conn.execute(update(table.table).where(table.owner == last).values(values))
        note_old_remains(conn)
    return last


def old_remains(conn: Connection) -> bool:
    """Tell whether the database's files may still hold what was stored in plain or under an older key."""
    return bool(conn.execute(select(meta.c.plain_remains)).scalar_one())


def note_old_remains(conn: Connection) -> None:
    """Note that they may; where it is noted already, nothing is written."""
    conn.execute(update(meta).where(meta.c.plain_remains.is_(False)).values(plain_remains=True))


def note_clean(conn: Connection) -> None:
    """Note that they do not."""
    conn.execute(update(meta).values(plain_remains=False))


def _keys(conn: Connection) -> Keyring:
    keys: Keyring = conn.get_execution_options().get(KEYRING, _NO_KEYS)
    return keys
