"""Machines that runners have and this database does not: why, and which of them one means.

It only looks. What happens to an orphan is decided by whoever asks for its import or its end.
"""

from typing import Final

from sqlalchemy import Connection, select

from controller.database import Database
from controller.domain.orphan import Orphan, OrphanReason, Unclaimed
from controller.errors import OrphanNotFound
from controller.instances.fleet import Fleet
from controller.operations import Clock, OperationId, State
from controller.operations.rows import operations
from controller.records import instance_rows
from controller.records.instance_record import RecordIncomplete, instance_from, name_in

REMOVING: Final = ("delete", "discard")
"""Kinds of operations after which nothing of a machine is left."""


class Orphans:
    """Finds what nobody claims.

    Args:
        database: Where the instances are.
        fleet: The runners.
        clock: Tells the time for records that have none.
        cluster_id: Identity of this database, as machines carry it.
    """

    def __init__(self, database: Database, fleet: Fleet, clock: Clock, cluster_id: str) -> None:
        self._database = database
        self._clock = clock
        self._fleet = fleet
        self._cluster_id = cluster_id

    async def on(self, node: str) -> list[Orphan]:
        """Return the orphans of a node, in order of their ids.

        Raises:
            NodeNotFound: There is no such node.
            PeerError: Its runner is away.
        """
        runner = self._fleet.runner(node)

        def ids(conn: Connection) -> set[str]:
            return instance_rows.ids(conn, node)

        # An instance that is being deleted has its row to the end, one that is being launched from the
        # beginning: what is in neither of two readings had no row while the runner was asked.
        before = await self._database.read(ids)
        found = await runner.unclaimed(before)
        known = await self._database.read(ids)
        unclaimed = [each for each in found if each.machine.id not in known]
        removals = await self._database.read(
            lambda conn: _removals(conn, [each.machine.id for each in unclaimed])
        )
        return [
            self._judged(each, node, removals.get(each.machine.id))
            for each in sorted(unclaimed, key=lambda each: each.machine.id)
        ]

    async def find(self, node: str, machine_id: str) -> Orphan:
        """Return one orphan.

        Raises:
            OrphanNotFound: There is none of this id.
            NodeNotFound: There is no such node.
            PeerError: Its runner is away.
        """
        for orphan in await self.on(node):
            if orphan.id == machine_id:
                return orphan
        raise OrphanNotFound(node, machine_id)

    def _judged(self, unclaimed: Unclaimed, node: str, removal: OperationId | None) -> Orphan:
        machine = unclaimed.machine
        name = name_in(machine.record)
        if unclaimed.fault:
            message = f"Its machine.json cannot be read: {unclaimed.fault}."
            return Orphan(unclaimed, name, OrphanReason.RECORD_UNREADABLE, message)
        try:
            instance_from(machine.record, node, self._clock.now())
        except RecordIncomplete as exc:
            message = f"Its record does not suffice to make an instance: {exc}."
            return Orphan(unclaimed, name, OrphanReason.RECORD_INCOMPLETE, message)
        if removal is not None:
            message = f"It was removed by {removal} and has come back."
            return Orphan(unclaimed, name, OrphanReason.DELETED, message)
        if machine.cluster_id != self._cluster_id:
            message = "It was made under another database of a controller."
            return Orphan(unclaimed, name, OrphanReason.OTHER_DATABASE, message)
        message = "This database does not have it, though it was made under it: is it an older copy?"
        return Orphan(unclaimed, name, OrphanReason.NOT_IN_DATABASE, message)


def _removals(conn: Connection, subjects: list[str]) -> dict[str, OperationId]:
    """Return which of the subjects were removed, and by which operation; history is kept for a while only."""
    rows = conn.execute(
        select(operations.c.subject, operations.c.id)
        .where(
            operations.c.subject.in_(subjects),
            operations.c.kind.in_(REMOVING),
            operations.c.state == State.SUCCEEDED.value,
        )
        .order_by(operations.c.seq)
    )
    return {subject: OperationId(found) for subject, found in rows}
