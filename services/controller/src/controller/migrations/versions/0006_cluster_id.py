"""The database's identity apart from its epoch, which changes when a backup is restored.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("meta", sa.Column("cluster_id", sa.String(32), nullable=False, server_default=""))
    # Machines carry the epoch that the database was made with.
    op.execute("UPDATE meta SET cluster_id = db_epoch")


def downgrade() -> None:
    op.drop_column("meta", "cluster_id")
