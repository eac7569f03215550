"""Capacity, evidence and logs of operations, and cloud-init that changes.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "node_turns",
        sa.Column("node", sa.String(63), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node", name="pk_node_turns"),
    )
    op.add_column("operations", sa.Column("log", sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "operation_files",
        sa.Column("op_seq", _SERIAL, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("op_seq", "name", name="pk_operation_files"),
        sa.ForeignKeyConstraint(
            ["op_seq"], ["operations.seq"], name="fk_operation_files_op_seq", ondelete="CASCADE"
        ),
    )
    op.add_column("instances", sa.Column("seed_revision", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "instance_secrets_wanted",
        sa.Column("instance_id", sa.String(36), nullable=False),
        sa.Column("user_data", sa.LargeBinary(), nullable=False),
        sa.Column("network_config", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name="pk_instance_secrets_wanted"),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["instances.id"],
            name="fk_instance_secrets_wanted_instance_id",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    op.drop_table("instance_secrets_wanted")
    op.drop_column("instances", "seed_revision")
    op.drop_table("operation_files")
    op.drop_column("operations", "log")
    op.drop_table("node_turns")
