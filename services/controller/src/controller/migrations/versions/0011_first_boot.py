"""What cloud-init is told besides the user's user-data.

Revision ID: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instances", sa.Column("first_boot", sa.JSON()))


def downgrade() -> None:
    op.drop_column("instances", "first_boot")
