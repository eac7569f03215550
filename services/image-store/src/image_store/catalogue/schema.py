"""The tables, as this build sees them; migrations/ makes them. The schema is portable to PostgreSQL."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite keeps no zone, so there the naive UTC text is stored."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC).replace(tzinfo=None if dialect.name == "sqlite" else UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA: Final = MetaData()

# One row: which database this is, and up to where its events were removed.
META: Final = Table(
    "meta",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("epoch", Text, nullable=False),
    Column("events_floor", BigInteger, nullable=False),
)
BLOBS: Final = Table(
    "blobs",
    METADATA,
    Column("stored_digest", Text, primary_key=True),
    Column("format", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("virtual_size_bytes", BigInteger, nullable=False),
)
IMAGES: Final = Table(
    "images",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("stored_digest", Text, ForeignKey("blobs.stored_digest"), nullable=False, index=True),
    Column("state", Text, nullable=False),
    Column("arch", Text, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    # Positions in the outbox: of the last event but those of pins, and of the last event.
    Column("generation", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)
IMAGE_LABELS: Final = Table(
    "image_labels",
    METADATA,
    Column("image", Text, ForeignKey("images.name", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index("image_labels_by_value", "key", "value"),
)
PINS: Final = Table(
    "pins",
    METADATA,
    Column("instance_id", Text, primary_key=True),
    Column("instance_name", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("stored_digest", Text, ForeignKey("blobs.stored_digest"), nullable=False, index=True),
    Column("create_time", UtcDateTime, nullable=False),
    # The image as it was then: its name may point elsewhere now, or be gone.
    Column("snapshot", JSON, nullable=False),
    Index("pins_by_image", "image", "digest"),
)
REQUESTS: Final = Table(
    "requests",
    METADATA,
    Column("call", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("answer", JSON, nullable=False),
    Column("expire_time", UtcDateTime, nullable=False, index=True),
)
EVENTS: Final = Table(
    "events",
    METADATA,
    # AUTOINCREMENT: a position must not come back after retention (it is in cursors and etags).
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("time", UtcDateTime, nullable=False, index=True),
    Column("type", Text, nullable=False),
    Column("resource", JSON, nullable=False),
    sqlite_autoincrement=True,
)
