"""Fences of a process that has just begun: above all that its machines' runner has seen, whoever asked it.

They are raised once for each runner in the life of this process, before anything else is taken over from it,
and beyond what counting on reaches. So the controller that was started last has the machines: one from a
backup although the machines have moved on, one on a copy of the database although the first may wake up. It
is never done later: a controller that was frozen while another took its place wakes up in the middle of its
life, and stays shut out.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.machine import Machine, MachinePhase
from controller.operations import fences_of, new_epoch, outbid
from controller.ports import Runner
from controller.records import instance_rows

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 16


class Fences:
    """Brings this database's fences above what the runners have seen.

    Args:
        database: Where the fences are.
        cluster_id: Identity of this database, as machines carry it.
    """

    def __init__(self, database: Database, cluster_id: str) -> None:
        self._database = database
        self._cluster_id = cluster_id
        self._done: set[str] = set()

    async def raise_once(self, runner: Runner, machines: Mapping[str, Machine]) -> None:
        """Raise the fences of the runner's instances, unless it was done before.

        Raises:
            PeerError: The runner does not answer; it is tried again with its next snapshot.
        """
        if runner.node in self._done:
            return
        ids = await self._database.read(lambda conn: instance_rows.ids(conn, runner.node))
        slots = asyncio.Semaphore(_AT_ONCE)

        async def look(machine_id: str) -> Machine:
            # What is gone has left its fence behind, which a snapshot does not tell of.
            async with slots:
                return await runner.get(machine_id)

        missing = await asyncio.gather(*(look(each) for each in sorted(ids - machines.keys())))
        seen = {
            machine.id: machine.fence
            for machine in (*(machines[each] for each in ids & machines.keys()), *missing)
            # What another database has imported is not taken back by looking at it.
            if machine.phase is MachinePhase.ABSENT or machine.cluster_id in {"", self._cluster_id}
        }
        if await self._database.write(lambda conn: _raise(conn, seen)):
            _log.warning(
                "database is older than its machines; cursors begin anew", extra={"node": runner.node}
            )
        self._done.add(runner.node)


def _raise(conn: Connection, seen: Mapping[str, int]) -> bool:
    """Raise fences; return whether this database was behind."""
    known = fences_of(conn, seen)
    behind = any(known.get(machine_id, 0) < fence for machine_id, fence in seen.items())
    outbid(conn, seen)
    if behind:
        # Positions that were given out after the backup stand for other events now.
        new_epoch(conn)
    return behind
