"""The domain's tables; migrations make them, and a test compares the two."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
)

from controller.database.types import UtcDateTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

instances = Table(
    "instances",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("image", JSON, nullable=False),
    Column("arch", String(16), nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("disk_mib", BigInteger, nullable=False),
    Column("nics", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("readiness", JSON, nullable=False),
    Column("node", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("message", String, nullable=False),
    Column("desired_power", String(16), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("observed_generation", BigInteger, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("machine", JSON(none_as_null=True)),
    Column("conditions", JSON, nullable=False),
    Column("restart_policy", String(16), nullable=False, server_default="never"),
    Column("autostart", Boolean, nullable=False, server_default=false()),
    Column("expire_time", UtcDateTime),
    Column("on_expire", String(8), nullable=False, server_default="delete"),
    Column("protected", Boolean, nullable=False, server_default=false()),
    Column("restart_count", Integer, nullable=False, server_default="0"),
    Column("next_restart_time", UtcDateTime),
    Column("running_since", UtcDateTime),
    # A policy waits for a moment: what a controller that starts has to look at.
    Column("timed", Boolean, nullable=False, server_default=false()),
    Column("seed_revision", Integer, nullable=False, server_default="0"),
    Column("failure", JSON(none_as_null=True)),
    Column("first_boot", JSON(none_as_null=True)),
    UniqueConstraint("name"),
    Index("ix_instances_node", "node"),
    Index("ix_instances_state", "state"),
    Index("ix_instances_timed_id", "timed", "id"),
)

# Beside the JSON column: lists filter here, answers are made there.
instance_labels = Table(
    "instance_labels",
    metadata,
    Column("instance_id", String(36), ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("value", String(256), nullable=False),
    Index("ix_instance_labels_key_value", "key", "value"),
)

# Read by the step that hands them to the runner, by nothing else.
instance_secrets = Table(
    "instance_secrets",
    metadata,
    Column("instance_id", String(36), ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True),
    Column("user_data", LargeBinary, nullable=False),
    Column("network_config", LargeBinary, nullable=False),
    # Here and below: the key that sealed the row (`sealed_rows`); empty: none did.
    Column("key_id", String(32), nullable=False, server_default=""),
    Index("ix_instance_secrets_key_id_instance_id", "key_id", "instance_id"),
)

# Beside the instance's row: a heartbeat writes here alone.
instance_leases = Table(
    "instance_leases",
    metadata,
    Column("instance_id", String(36), ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True),
    Column("duration_s", Float, nullable=False),
    Column("beats", BigInteger, nullable=False),
    Column("lease_expire_time", UtcDateTime, nullable=False),
    Column("lease_lost_time", UtcDateTime),
)

# Secrets that an update brings, until it has succeeded.
instance_secrets_wanted = Table(
    "instance_secrets_wanted",
    metadata,
    Column("instance_id", String(36), ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True),
    Column("user_data", LargeBinary, nullable=False),
    Column("network_config", LargeBinary, nullable=False),
    Column("key_id", String(32), nullable=False, server_default=""),
    Index("ix_instance_secrets_wanted_key_id_instance_id", "key_id", "instance_id"),
)

# URLs of images that are still to be fetched, by what their operation works on; they may hold secrets.
image_sources = Table(
    "image_sources",
    metadata,
    Column("subject", String(128), primary_key=True),
    Column("url", LargeBinary, nullable=False),
    Column("key_id", String(32), nullable=False, server_default=""),
    Index("ix_image_sources_key_id_subject", "key_id", "subject"),
)

# How far another service's outbox has been taken into the one log.
peer_cursors = Table(
    "peer_cursors",
    metadata,
    Column("peer", String(64), primary_key=True),
    Column("cursor", String(255), nullable=False),
)

# One row a node: whoever changes it is the only one to reserve there until its transaction ends.
node_turns = Table(
    "node_turns",
    metadata,
    Column("node", String(63), primary_key=True),
    Column("turn", BigInteger, nullable=False),
)
