"""Instances, their labels and secrets, and how far peers' outboxes have been read.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op
from controller.database.types import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "instances",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("image", sa.JSON(), nullable=False),
        sa.Column("arch", sa.String(16), nullable=False),
        sa.Column("cpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_mib", sa.BigInteger(), nullable=False),
        sa.Column("nics", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("readiness", sa.JSON(), nullable=False),
        sa.Column("node", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("desired_power", sa.String(16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("observed_generation", sa.BigInteger(), nullable=False),
        sa.Column("create_time", UtcDateTime(), nullable=False),
        sa.Column("machine", sa.JSON()),
        sa.Column("conditions", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.UniqueConstraint("name", name="uq_instances_name"),
    )
    op.create_index("ix_instances_node", "instances", ["node"])
    op.create_index("ix_instances_state", "instances", ["state"])
    op.create_table(
        "instance_labels",
        sa.Column("instance_id", sa.String(36), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("value", sa.String(256), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "key", name="pk_instance_labels"),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_instance_labels_instance_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_instance_labels_key_value", "instance_labels", ["key", "value"])
    op.create_table(
        "instance_secrets",
        sa.Column("instance_id", sa.String(36), nullable=False),
        sa.Column("user_data", sa.LargeBinary(), nullable=False),
        sa.Column("network_config", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name="pk_instance_secrets"),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_instance_secrets_instance_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "peer_cursors",
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("cursor", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("peer", name="pk_peer_cursors"),
    )


def downgrade() -> None:
    for table in ("peer_cursors", "instance_secrets", "instance_labels", "instances"):
        op.drop_table(table)
