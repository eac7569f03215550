"""Rows of `instances` read and written.

Every change raises the revision; a state comes out of the lifecycle's table alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, delete, func, insert, select, update

from controller.domain.condition import Condition
from controller.domain.first_boot import FirstBoot
from controller.domain.instance import DesiredPower, Failure, Instance, InstanceId, InstanceImage, Resources
from controller.domain.lease import Lease
from controller.domain.lifecycle import Event, InstanceState, next_state
from controller.domain.machine import Machine, MachineNic
from controller.domain.policy import OnExpire, Policies, RestartPolicy, Restarts
from controller.domain.readiness import Readiness
from controller.domain.redaction import readable
from controller.operations.rows import subjects
from controller.records import image_sources
from controller.records.lease_rows import write_lease
from controller.records.readiness_documents import stored_readiness
from controller.records.schema import (
    instance_labels,
    instance_leases,
    instance_secrets,
    instance_secrets_wanted,
    instances,
)
from controller.records.sealed_rows import INSTANCE_SECRETS, WANTED_SECRETS, opened, sealed
from controller.records.stored_json import from_stored, to_stored

_LEASE: Final = (
    instance_leases.c.duration_s,
    instance_leases.c.beats,
    instance_leases.c.lease_expire_time,
    instance_leases.c.lease_lost_time,
)
SELECTION: Final[Select[Any]] = (
    select(instances, subjects.c.active_op, *_LEASE)
    .outerjoin(subjects, subjects.c.id == instances.c.id)
    .outerjoin(instance_leases, instance_leases.c.instance_id == instances.c.id)
)
# Made once: building a statement costs more than running it.
_BY_NAME: Final = SELECTION.where(instances.c.name == bindparam("wanted"))
_BY_ID: Final = SELECTION.where(instances.c.id == bindparam("wanted"))
# `coalesce` hides the node from the planner, which would sort all of the node's rows for each page; so the
# primary key gives the order, and a page costs what is on it.
_ON_NODE: Final = (
    SELECTION.where(
        func.coalesce(instances.c.node, "") == bindparam("wanted"), instances.c.id > bindparam("after")
    )
    .order_by(instances.c.id)
    .limit(bindparam("size"))
)
_SAVE: Final = update(instances).where(instances.c.id == bindparam("wanted"))


_SOUND: Final = frozenset({InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.STOPPED})


@dataclass(frozen=True, slots=True)
class _Conditions:
    items: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class _Nics:
    items: tuple[MachineNic, ...] = ()


@dataclass(frozen=True, slots=True)
class Secrets:
    """What no answer shows.

    Attributes:
        known: False for an imported instance: what its seed was made of is in the seed alone.
    """

    user_data: bytes
    network_config: str
    known: bool = True

    def __repr__(self) -> str:
        """Show nothing."""
        return "Secrets()"


def to_instance(row: Row[Any]) -> Instance:
    """Read a row of `SELECTION`."""
    return Instance(
        id=InstanceId(row.id),
        name=row.name,
        image=from_stored(InstanceImage, row.image),
        arch=row.arch,
        resources=Resources(row.cpus, row.memory_mib, row.disk_mib),
        nics=from_stored(_Nics, row.nics).items,
        labels=row.labels,
        readiness=from_stored(Readiness, stored_readiness(row.readiness)),
        node=row.node,
        state=InstanceState(row.state),
        reason=row.reason,
        message=row.message,
        desired_power=DesiredPower(row.desired_power),
        generation=row.generation,
        revision=row.revision,
        observed_generation=row.observed_generation,
        create_time=row.create_time,
        machine=None if row.machine is None else from_stored(Machine, row.machine),
        conditions=from_stored(_Conditions, row.conditions).items,
        seed_revision=row.seed_revision,
        first_boot=FirstBoot() if row.first_boot is None else from_stored(FirstBoot, row.first_boot),
        operation=row.active_op or "",
        policies=Policies(
            restart=RestartPolicy(row.restart_policy),
            autostart=row.autostart,
            expire_time=row.expire_time,
            on_expire=OnExpire(row.on_expire),
            protected=row.protected,
        ),
        restarts=Restarts(row.restart_count, row.next_restart_time, row.running_since),
        lease=_lease(row),
        failure=None if row.failure is None else from_stored(Failure, row.failure),
    )


def _lease(row: Row[Any]) -> Lease | None:
    if row.duration_s is None:
        return None
    return Lease(row.duration_s, row.beats, row.lease_expire_time, row.lease_lost_time)


def nics_of(stored: Sequence[Any]) -> tuple[MachineNic, ...]:
    """Return NICs that were stored with an operation."""
    return from_stored(_Nics, {"items": stored}).items


def find_by_name(conn: Connection, name: str) -> Instance | None:
    """Return the instance of this name."""
    row = conn.execute(_BY_NAME, {"wanted": name}).one_or_none()
    return None if row is None else to_instance(row)


def find(conn: Connection, instance_id: str) -> Instance | None:
    """Return the instance of this id."""
    row = conn.execute(_BY_ID, {"wanted": instance_id}).one_or_none()
    return None if row is None else to_instance(row)


def page_on_node(conn: Connection, node: str, after: str, size: int) -> Sequence[Instance]:
    """Return the first instances of a node whose ids follow `after`, in order of id."""
    return [
        to_instance(row) for row in conn.execute(_ON_NODE, {"wanted": node, "after": after, "size": size})
    ]


def ids(conn: Connection, node: str) -> set[str]:
    """Return the ids of all instances of a node."""
    return set(conn.execute(select(instances.c.id).where(instances.c.node == node)).scalars())


def among(conn: Connection, ids: Sequence[str]) -> dict[str, Instance]:
    """Return those of these instances that there are, by id."""
    return {row.id: to_instance(row) for row in conn.execute(SELECTION.where(instances.c.id.in_(ids)))}


def timed(conn: Connection) -> Sequence[str]:
    """Return the ids of all instances of which a policy waits for a moment."""
    return conn.execute(select(instances.c.id).where(instances.c.timed.is_(True))).scalars().all()


def add(conn: Connection, instance: Instance, secrets: Secrets) -> None:
    """Insert an instance and what it keeps secret."""
    conn.execute(insert(instances).values(id=instance.id, **_columns(instance)))
    _write_labels(conn, instance)
    write_lease(conn, instance.id, instance.lease)
    if not secrets.known:
        return
    conn.execute(
        insert(instance_secrets).values(sealed(conn, INSTANCE_SECRETS, instance.id, _columns_of(secrets)))
    )


def moved(
    instance: Instance, event: Event, *, reason: str = "", message: str = "", failure: Failure | None = None
) -> Instance:
    """Return `instance` in the state that follows `event`.

    A failure is kept until the instance has come up again or is off as it should be; a later one replaces it.

    Raises:
        IllegalTransition: The table has no such entry.
    """
    state = next_state(instance.state, event)
    kept = None if state in _SOUND else failure or instance.failure
    return replace(instance, state=state, reason=reason, message=message, failure=kept)


def save(conn: Connection, instance: Instance) -> Instance:
    """Write `instance` under its next revision and return it so; `write_lease` alone writes its lease."""
    written = replace(instance, revision=instance.revision + 1)
    conn.execute(_SAVE, {"wanted": instance.id, **_columns(written)})
    return written


def note_machine(conn: Connection, instance_id: str, machine: Machine) -> None:
    """Write an observation that shows nothing new: how far its runner has counted, no revision of ours."""
    conn.execute(update(instances).where(instances.c.id == instance_id).values(machine=to_stored(machine)))


def save_labels(conn: Connection, instance: Instance) -> None:
    """Bring the table that lists filter by in step with the instance's labels."""
    conn.execute(delete(instance_labels).where(instance_labels.c.instance_id == instance.id))
    _write_labels(conn, instance)


def remove(conn: Connection, instance_id: str) -> None:
    """Remove an instance with its labels, lease and secrets."""
    for table in (instance_labels, instance_leases, instance_secrets, instance_secrets_wanted):
        conn.execute(delete(table).where(table.c.instance_id == instance_id))
    image_sources.forget(conn, instance_id)
    conn.execute(delete(instances).where(instances.c.id == instance_id))


def secrets_of(conn: Connection, instance_id: str) -> Secrets:
    """Return what the runner alone is told; an imported instance has nothing that is known."""
    row = conn.execute(
        select(instance_secrets).where(instance_secrets.c.instance_id == instance_id)
    ).one_or_none()
    if row is None:
        return Secrets(b"", "", known=False)
    return _secrets_in(opened(conn, INSTANCE_SECRETS, row))


def want_secrets(conn: Connection, instance_id: str, secrets: Secrets) -> None:
    """Keep what an update brings beside what holds, until the update has succeeded."""
    drop_wanted_secrets(conn, instance_id)
    conn.execute(
        insert(instance_secrets_wanted).values(
            sealed(conn, WANTED_SECRETS, instance_id, _columns_of(secrets))
        )
    )


def take_wanted_secrets(conn: Connection, instance_id: str) -> None:
    """Put what an update brought in the place of what held; harmless if it is there already."""
    row = conn.execute(
        select(instance_secrets_wanted).where(instance_secrets_wanted.c.instance_id == instance_id)
    ).one_or_none()
    if row is not None:
        # An imported instance has none that hold.
        conn.execute(delete(instance_secrets).where(instance_secrets.c.instance_id == instance_id))
        # As it is sealed: the key need not be there.
        conn.execute(insert(instance_secrets).values(dict(row._mapping)))  # noqa: SLF001 - its documented name
        drop_wanted_secrets(conn, instance_id)


def drop_wanted_secrets(conn: Connection, instance_id: str) -> None:
    """Forget what an update would have brought."""
    conn.execute(delete(instance_secrets_wanted).where(instance_secrets_wanted.c.instance_id == instance_id))


def all_secrets_of(conn: Connection, instance_id: str) -> tuple[str, ...]:
    """Return every secret text of an instance, those to come included."""
    texts: list[str] = []
    for table in (INSTANCE_SECRETS, WANTED_SECRETS):
        for row in conn.execute(select(table.table).where(table.owner == instance_id)):
            found = _secrets_in(opened(conn, table, row))
            texts += (readable(found.user_data), found.network_config)
    texts.append(image_sources.find(conn, instance_id) or "")
    return tuple(text for text in texts if text)


def _columns_of(secrets: Secrets) -> dict[str, bytes]:
    return {
        "user_data": secrets.user_data,
        "network_config": secrets.network_config.encode(),
    }


def _secrets_in(columns: Mapping[str, bytes]) -> Secrets:
    return Secrets(columns["user_data"], columns["network_config"].decode())


def _write_labels(conn: Connection, instance: Instance) -> None:
    if instance.labels:
        conn.execute(
            insert(instance_labels),
            [
                {"instance_id": instance.id, "key": key, "value": value}
                for key, value in instance.labels.items()
            ],
        )


def _columns(instance: Instance) -> dict[str, Any]:
    return {
        "name": instance.name,
        "image": to_stored(instance.image),
        "arch": instance.arch,
        "cpus": instance.resources.cpus,
        "memory_mib": instance.resources.memory_mib,
        "disk_mib": instance.resources.disk_mib,
        "nics": to_stored(_Nics(instance.nics)),
        "labels": dict(instance.labels),
        "readiness": to_stored(instance.readiness),
        "node": instance.node,
        "state": instance.state.value,
        "reason": instance.reason,
        # PostgreSQL's texts hold no NUL, and what QEMU or a guest has printed may.
        "message": instance.message.replace("\0", "\N{REPLACEMENT CHARACTER}"),
        "desired_power": instance.desired_power.value,
        "generation": instance.generation,
        "revision": instance.revision,
        "observed_generation": instance.observed_generation,
        "create_time": instance.create_time,
        "machine": None if instance.machine is None else to_stored(instance.machine),
        "conditions": to_stored(_Conditions(instance.conditions)),
        "seed_revision": instance.seed_revision,
        "first_boot": None if instance.first_boot == FirstBoot() else to_stored(instance.first_boot),
        "restart_policy": instance.policies.restart.value,
        "autostart": instance.policies.autostart,
        "expire_time": instance.policies.expire_time,
        "on_expire": instance.policies.on_expire.value,
        "protected": instance.policies.protected,
        "restart_count": instance.restarts.count,
        "next_restart_time": instance.restarts.next_time,
        "running_since": instance.restarts.running_since,
        "timed": instance.timed,
        "failure": None if instance.failure is None else to_stored(instance.failure),
    }
