"""Images, blobs, pins, idempotency keys and the outbox."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    meta = op.create_table(
        "meta",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("events_floor", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(meta, [{"id": 1, "epoch": secrets.token_hex(8), "events_floor": 0}])
    op.create_table(
        "blobs",
        sa.Column("stored_digest", sa.Text, primary_key=True),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("virtual_size_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "images",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("stored_digest", sa.Text, sa.ForeignKey("blobs.stored_digest"), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("arch", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_images_stored_digest", "images", ["stored_digest"])
    op.create_table(
        "image_labels",
        sa.Column("image", sa.Text, sa.ForeignKey("images.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_index("image_labels_by_value", "image_labels", ["key", "value"])
    op.create_table(
        "pins",
        sa.Column("instance_id", sa.Text, primary_key=True),
        sa.Column("instance_name", sa.Text, nullable=False),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("stored_digest", sa.Text, sa.ForeignKey("blobs.stored_digest"), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("snapshot", sa.JSON, nullable=False),
    )
    op.create_index("ix_pins_stored_digest", "pins", ["stored_digest"])
    op.create_index("pins_by_image", "pins", ["image", "digest"])
    op.create_table(
        "requests",
        sa.Column("call", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_requests_expire_time", "requests", ["expire_time"])
    op.create_table(
        "events",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("resource", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_time", "events", ["time"])
