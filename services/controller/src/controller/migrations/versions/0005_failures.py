"""What is kept of a failure, beside the machine's last observation, which the next one replaces.

Revision ID: 0005
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instances", sa.Column("failure", sa.JSON()))
    if not op.get_context().as_sql:
        # A script written in advance knows no rows.
        _keep_what_is_known()


def _keep_what_is_known() -> None:
    """Fill the column for instances that have failed before it was there, from their last observation."""
    rows = sa.table(
        "instances",
        sa.column("id", sa.String),
        sa.column("state", sa.String),
        sa.column("reason", sa.String),
        sa.column("message", sa.String),
        sa.column("machine", sa.JSON),
        sa.column("failure", sa.JSON),
    )
    connection = op.get_bind()
    now = datetime.now(UTC).isoformat()
    for row in connection.execute(sa.select(rows).where(rows.c.state == "FAILED")).all():
        end = (row.machine or {}).get("exit") or {}
        failure = {
            "reason": row.reason,
            "message": row.message,
            "time": now,
            "stderr_tail": end.get("stderr_tail", ""),
            "console_tail": end.get("console_tail", ""),
        }
        connection.execute(sa.update(rows).where(rows.c.id == row.id).values(failure=failure))


def downgrade() -> None:
    op.drop_column("instances", "failure")
