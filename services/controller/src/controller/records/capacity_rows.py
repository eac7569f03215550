"""What is reserved on a node, read from the instances themselves: a reservation cannot be left behind.

Whoever judges holds the node until its transaction ends, so two that fit each alone cannot both be let in.
"""

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, and_, case, func, insert, or_, select, update

from controller.domain.capacity import POWERED_STATES, UNTOLD_STATES, Reservation, overhead_mib
from controller.domain.instance import DesiredPower
from controller.domain.machine import MachinePhase
from controller.domain.shortage import Holder, Resource
from controller.records.schema import instances, node_turns

_POWERED = or_(
    instances.c.desired_power == DesiredPower.RUNNING.value,
    instances.c.state.in_(sorted(POWERED_STATES)),
    and_(
        instances.c.state.in_(sorted(UNTOLD_STATES)),
        instances.c.machine["phase"].as_string() == MachinePhase.ACTIVE.value,
    ),
)


def know_nodes(conn: Connection, nodes: Iterable[str]) -> None:
    """Make the rows by which nodes are held."""
    known = set(conn.execute(select(node_turns.c.node)).scalars())
    for node in sorted(set(nodes) - known):
        conn.execute(insert(node_turns).values(node=node, turn=0))


def hold_node(conn: Connection, node: str) -> None:
    """Let nobody else reserve on the node until this transaction ends."""
    taken = conn.execute(
        update(node_turns).where(node_turns.c.node == node).values(turn=node_turns.c.turn + 1)
    )
    if not taken.rowcount:
        conn.execute(insert(node_turns).values(node=node, turn=1))


def reserved(conn: Connection, node: str, *, emulated: bool, without: str = "") -> Reservation:
    """Return what the node's instances take together, one of them (by id) left out."""
    sums = [func.coalesce(func.sum(_amount(resource, emulated=emulated)), 0) for resource in Resource]
    row = conn.execute(select(*sums).where(instances.c.node == node, instances.c.id != without)).one()
    cpus, memory_mib, disk_mib = (int(value) for value in row)
    return Reservation(cpus, memory_mib, disk_mib)


def holders(
    conn: Connection, node: str, resource: Resource, count: int, *, emulated: bool
) -> tuple[Holder, ...]:
    """Return the instances that take most of a resource."""
    amount = _amount(resource, emulated=emulated).label("amount")
    largest = (
        select(instances.c.name, amount)
        .where(instances.c.node == node, amount > 0)
        .order_by(amount.desc(), instances.c.name)
        .limit(count)
    )
    return tuple(Holder(name, int(held)) for name, held in conn.execute(largest))


def _amount(resource: Resource, *, emulated: bool) -> ColumnElement[int]:
    match resource:
        case Resource.CPUS:
            return case((_POWERED, instances.c.cpus), else_=0)
        case Resource.MEMORY:
            own = overhead_mib(instances.c.cpus, instances.c.memory_mib, emulated=emulated, least=_least)
            return case((_POWERED, instances.c.memory_mib + own), else_=0)
        case Resource.DISK:
            return instances.c.disk_mib


def _least(one: ColumnElement[int], other: int) -> ColumnElement[int]:
    # LEAST of PostgreSQL is MIN of SQLite.
    return case((one < other, one), else_=other)
