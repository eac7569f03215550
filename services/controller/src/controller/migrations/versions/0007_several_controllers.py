"""What several controllers on one database need: their leases, and positions of events by transaction.

The lease is a controller's, no longer an operation's: one row to renew, which no save waits for.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op
from controller.database.types import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "engines",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("lease_until", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_engines"),
    )
    op.drop_index("ix_operations_lease", table_name="operations")
    op.drop_column("operations", "lease_until")
    owned = sa.text("owner IS NOT NULL")
    op.create_index(
        "ix_operations_owner", "operations", ["owner"], sqlite_where=owned, postgresql_where=owned
    )
    op.add_column("meta", sa.Column("events_floor_xid", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE events SET xid = 0 WHERE xid IS NULL")


def downgrade() -> None:
    op.drop_column("meta", "events_floor_xid")
    op.drop_index("ix_operations_owner", table_name="operations")
    op.add_column("operations", sa.Column("lease_until", UtcDateTime()))
    owned = sa.text("owner IS NOT NULL")
    op.create_index(
        "ix_operations_lease", "operations", ["lease_until"], sqlite_where=owned, postgresql_where=owned
    )
    op.drop_table("engines")
