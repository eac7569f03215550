"""URLs that images are still to be fetched from.

Revision ID: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "image_sources",
        sa.Column("subject", sa.String(128), primary_key=True),
        sa.Column("url", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("image_sources")
