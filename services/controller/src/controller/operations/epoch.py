"""Who this database is, and which of its histories it is in.

It owns `meta.cluster_id`, which stays for the database's life, and `meta.db_epoch`, which cursors carry and
which changes when history was rewound.
"""

import secrets

from sqlalchemy import Connection, select, update

from controller.operations.rows import meta


def cluster_id(conn: Connection) -> str:
    """Return the database's identity."""
    return str(conn.execute(select(meta.c.cluster_id)).scalar_one())


def new_epoch(conn: Connection) -> None:
    """Begin another epoch: cursors of the one before are refused as expired."""
    conn.execute(update(meta).values(db_epoch=secrets.token_hex(8)))
