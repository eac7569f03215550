"""Which key sealed a secret, and whether the files may still hold what was plain or under an older key.

Revision ID: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_OWNERS = {
    "instance_secrets": "instance_id",
    "instance_secrets_wanted": "instance_id",
    "image_sources": "subject",
}


def upgrade() -> None:
    for table, owner in _OWNERS.items():
        op.add_column(table, sa.Column("key_id", sa.String(32), nullable=False, server_default=""))
        op.create_index(f"ix_{table}_key_id_{owner}", table, ["key_id", owner])
    op.add_column("meta", sa.Column("plain_remains", sa.Boolean, nullable=False, server_default=sa.true()))


def downgrade() -> None:
    # A build of before would take what is sealed for what is plain, and give it to guests.
    for table in _OWNERS:
        rows = sa.table(table, sa.column("key_id"))
        if op.get_bind().execute(sa.select(rows).where(rows.c.key_id != "").limit(1)).first() is not None:
            raise RuntimeError(f"{table} holds sealed secrets, which no older version can open")
    op.drop_column("meta", "plain_remains")
    for table, owner in _OWNERS.items():
        op.drop_index(f"ix_{table}_key_id_{owner}", table_name=table)
        op.drop_column(table, "key_id")
