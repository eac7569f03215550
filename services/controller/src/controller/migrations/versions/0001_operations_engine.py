"""Tables of the operations engine: operations, their subjects, idempotency keys, events, meta.

Revision ID: 0001
"""

import secrets

import sqlalchemy as sa
from alembic import op
from controller.database.types import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "operations",
        sa.Column("seq", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("plan_rev", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("subject_name", sa.String(255), nullable=False),
        sa.Column("initiator", sa.String(16), nullable=False),
        sa.Column("requested_by", sa.String(255), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.String(64), nullable=False),
        sa.Column("entered_steps", sa.JSON(), nullable=False),
        sa.Column("stages", sa.JSON(), nullable=False),
        sa.Column("progress", sa.JSON()),
        sa.Column("outcome", sa.String(16)),
        sa.Column("error", sa.JSON()),
        sa.Column("undo_scope", sa.String(16), nullable=False),
        sa.Column("needs_attention", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step_failures", sa.Integer(), nullable=False),
        sa.Column("undo_failures", sa.Integer(), nullable=False),
        sa.Column("not_before", UtcDateTime(), nullable=False),
        sa.Column("deadline", UtcDateTime(), nullable=False),
        sa.Column("undo_deadline", UtcDateTime()),
        sa.Column("cancel_requested_at", UtcDateTime()),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease_until", UtcDateTime()),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("seq", name="pk_operations"),
        sa.UniqueConstraint("id", name="uq_operations_id"),
        sqlite_autoincrement=True,
    )
    _partial_index(
        "uq_operations_active", ["subject"], "state IN ('queued', 'running', 'undoing')", unique=True
    )
    _partial_index("uq_operations_blocked", ["subject"], "state = 'blocked'", unique=True)
    _partial_index(
        "ix_operations_ready",
        ["not_before", "seq"],
        "owner IS NULL AND state IN ('queued', 'running', 'undoing')",
    )
    _partial_index("ix_operations_lease", ["lease_until"], "owner IS NOT NULL")
    _partial_index("ix_operations_waiting", ["deadline"], "state IN ('queued', 'blocked')")
    op.create_index("ix_operations_subject", "operations", ["subject", "seq"])
    op.create_index("ix_operations_tenant", "operations", ["tenant", "seq"])
    _partial_index("ix_operations_finished", ["finished_at"], "finished_at IS NOT NULL")

    op.create_table(
        "operation_subjects",
        sa.Column("op_seq", _SERIAL, nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("op_seq", "subject", name="pk_operation_subjects"),
        sa.ForeignKeyConstraint(
            ["op_seq"], ["operations.seq"], name="fk_operation_subjects_op_seq", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "uq_operation_subjects_active",
        "operation_subjects",
        ["subject"],
        unique=True,
        sqlite_where=sa.text("active = 1"),
        postgresql_where=sa.text("active"),
    )
    op.create_table(
        "subjects",
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("active_op", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_subjects"),
    )
    op.create_table(
        "idempotency",
        sa.Column("scope", sa.String(512), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("request_hash", sa.String(128), nullable=False),
        sa.Column("op_id", sa.String(64)),
        sa.Column("response", sa.JSON()),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_expires_at", "idempotency", ["expires_at"])
    op.create_table(
        "events",
        sa.Column("rev", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("xid", sa.BigInteger()),
        sa.Column("ts", UtcDateTime(), nullable=False),
        sa.Column("epoch", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("subject", sa.String(128)),
        sa.Column("op_id", sa.String(64)),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("rev", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_xid_rev", "events", ["xid", "rev"])
    op.create_index("ix_events_subject_rev", "events", ["subject", "rev"])
    op.create_index("ix_events_ts", "events", ["ts"])
    meta = op.create_table(
        "meta",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("db_epoch", sa.String(32), nullable=False),
        sa.Column("schema_rev", sa.Integer(), nullable=False),
        sa.Column("min_build", sa.String(32), nullable=False),
        sa.Column("events_floor", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_meta"),
        sa.CheckConstraint("id = 1", name="ck_meta_one_row"),
    )
    op.bulk_insert(
        meta,
        [
            {
                "id": 1,
                "db_epoch": secrets.token_hex(8),
                "schema_rev": 1,
                "min_build": "0.1.0",
                "events_floor": 0,
            }
        ],
    )


def downgrade() -> None:
    for table in ("meta", "events", "idempotency", "subjects", "operation_subjects", "operations"):
        op.drop_table(table)


def _partial_index(name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    op.create_index(
        name,
        "operations",
        columns,
        unique=unique,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )
