"""The engine's tables.

It owns their shape as queries see it; the migrations make them, and a test compares the two. The predicates
of partial indices are literals, here and in the queries, or SQLite reads the whole table. `engines` and the
xids of events are for databases that several controllers share.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
    true,
)

from controller.database.types import UtcDateTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ACTIVE = text("state IN ('queued', 'running', 'undoing')")
READY = text("owner IS NULL AND state IN ('queued', 'running', 'undoing')")
WAITING = text("state IN ('queued', 'blocked')")
BLOCKED = text("state = 'blocked'")

# SQLite increments only an INTEGER primary key.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

operations = Table(
    "operations",
    metadata,
    # AUTOINCREMENT: a number must not come again after retention has removed its row.
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("plan_rev", Integer, nullable=False),
    Column("subject", String(128), nullable=False),
    Column("subject_name", String(255), nullable=False),
    Column("initiator", String(16), nullable=False),
    Column("requested_by", String(255), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", String(64), nullable=False),
    Column("entered_steps", JSON, nullable=False),
    Column("stages", JSON, nullable=False),
    Column("progress", JSON(none_as_null=True)),
    Column("outcome", String(16)),
    Column("error", JSON(none_as_null=True)),
    Column("undo_scope", String(16), nullable=False),
    Column("needs_attention", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step_failures", Integer, nullable=False),
    Column("undo_failures", Integer, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("deadline", UtcDateTime, nullable=False),
    Column("undo_deadline", UtcDateTime),
    Column("cancel_requested_at", UtcDateTime),
    Column("owner", String(64)),
    Column("fence", BigInteger, nullable=False),
    Column("traceparent", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("log", JSON, nullable=False, server_default="[]"),
    UniqueConstraint("id"),
    Index(
        "uq_operations_active",
        "subject",
        unique=True,
        sqlite_where=ACTIVE,
        postgresql_where=ACTIVE,
    ),
    Index(
        "uq_operations_blocked",
        "subject",
        unique=True,
        sqlite_where=BLOCKED,
        postgresql_where=BLOCKED,
    ),
    Index(
        "ix_operations_ready",
        "not_before",
        "seq",
        sqlite_where=READY,
        postgresql_where=READY,
    ),
    Index(
        "ix_operations_owner",
        "owner",
        sqlite_where=text("owner IS NOT NULL"),
        postgresql_where=text("owner IS NOT NULL"),
    ),
    Index(
        "ix_operations_waiting",
        "deadline",
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    ),
    Index("ix_operations_subject", "subject", "seq"),
    Index("ix_operations_tenant", "tenant", "seq"),
    Index(
        "ix_operations_finished",
        "finished_at",
        sqlite_where=text("finished_at IS NOT NULL"),
        postgresql_where=text("finished_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

operation_subjects = Table(
    "operation_subjects",
    metadata,
    Column("op_seq", _Serial, ForeignKey("operations.seq", ondelete="CASCADE"), primary_key=True),
    Column("subject", String(128), primary_key=True),
    Column("active", Boolean, nullable=False),
    # The database itself refuses two active operations on one subject, whichever of its subjects it is.
    Index(
        "uq_operation_subjects_active",
        "subject",
        unique=True,
        sqlite_where=text("active = 1"),
        postgresql_where=text("active"),
    ),
)

# What was kept with an operation when it failed, before anything of it was undone.
operation_files = Table(
    "operation_files",
    metadata,
    Column("op_seq", _Serial, ForeignKey("operations.seq", ondelete="CASCADE"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

subjects = Table(
    "subjects",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("active_op", String(64)),
)

# The lease of each process that claims operations, by the database's clock.
engines = Table(
    "engines",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("lease_until", UtcDateTime, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("scope", String(512), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("request_hash", String(128), nullable=False),
    Column("op_id", String(64)),
    Column("response", JSON(none_as_null=True)),
    Column("expires_at", UtcDateTime, nullable=False),
    Index("ix_idempotency_expires_at", "expires_at"),
)

events = Table(
    "events",
    metadata,
    Column("rev", _Serial, primary_key=True, autoincrement=True),
    Column("xid", BigInteger, default=0),
    Column("ts", UtcDateTime, nullable=False),
    Column("epoch", String(32), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("subject", String(128)),
    Column("op_id", String(64)),
    Column("fence", BigInteger, nullable=False),
    Column("type", String(64), nullable=False),
    Column("data", JSON, nullable=False),
    Index("ix_events_xid_rev", "xid", "rev"),
    Index("ix_events_subject_rev", "subject", "rev"),
    Index("ix_events_ts", "ts"),
    sqlite_autoincrement=True,
)

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("db_epoch", String(32), nullable=False),
    Column("schema_rev", Integer, nullable=False),
    Column("min_build", String(32), nullable=False),
    Column("events_floor", BigInteger, nullable=False),
    Column("cluster_id", String(32), nullable=False, server_default=""),
    Column("events_floor_xid", BigInteger, nullable=False, server_default="0"),
    # Whether the database's files may hold secrets in plain or under an older key.
    Column("plain_remains", Boolean, nullable=False, server_default=true()),
    CheckConstraint("id = 1", name="one_row"),
)
