"""Policies of instances: restarting, starting again, ending, leases, protection.

Revision ID: 0003
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from controller.database.types import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("restart_policy", sa.String(16), nullable=False, server_default="never"),
    sa.Column("autostart", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("expire_time", UtcDateTime()),
    sa.Column("on_expire", sa.String(8), nullable=False, server_default="delete"),
    sa.Column("protected", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("restart_count", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("next_restart_time", UtcDateTime()),
    sa.Column("running_since", UtcDateTime()),
    sa.Column("timed", sa.Boolean(), nullable=False, server_default=sa.false()),
)


def upgrade() -> None:
    for column in _COLUMNS:
        op.add_column("instances", column)
    op.create_index("ix_instances_timed_id", "instances", ["timed", "id"])
    op.create_table(
        "instance_leases",
        sa.Column("instance_id", sa.String(36), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("beats", sa.BigInteger(), nullable=False),
        sa.Column("lease_expire_time", UtcDateTime(), nullable=False),
        sa.Column("lease_lost_time", UtcDateTime()),
        sa.PrimaryKeyConstraint("instance_id", name="pk_instance_leases"),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_instance_leases_instance_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("instance_leases")
    op.drop_index("ix_instances_timed_id", "instances")
    for column in reversed(_COLUMNS):
        op.drop_column("instances", column.name)
