"""Rows of `instance_leases`: what a heartbeat writes, beside the instance and without an event."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from controller.domain.lease import Lease
from controller.records.schema import instance_leases


def write_lease(conn: Connection, instance_id: str, lease: Lease | None) -> None:
    """Have the instance's lease be `lease`."""
    of_instance = instance_leases.c.instance_id == instance_id
    if lease is None:
        conn.execute(delete(instance_leases).where(of_instance))
        return
    values = {
        "duration_s": lease.duration_s,
        "beats": lease.beats,
        "lease_expire_time": lease.expire_time,
        "lease_lost_time": lease.lost_time,
    }
    if conn.execute(update(instance_leases).where(of_instance).values(**values)).rowcount == 0:
        conn.execute(insert(instance_leases).values(instance_id=instance_id, **values))


def begin_anew(conn: Connection, now: datetime) -> None:
    """Give every lease that is held its whole length from `now` on: before, nobody could renew it."""
    held = instance_leases.c.lease_lost_time.is_(None)
    rows = conn.execute(select(instance_leases.c.instance_id, instance_leases.c.duration_s).where(held)).all()
    if not rows:
        return
    changes = [
        {"of_instance": row.instance_id, "until": now + timedelta(seconds=row.duration_s)} for row in rows
    ]
    conn.execute(
        update(instance_leases)
        .where(instance_leases.c.instance_id == bindparam("of_instance"), held)
        .values(lease_expire_time=bindparam("until")),
        changes,
    )
