"""Renewing leases: by a heartbeat, or by holding a stream. Neither is an operation or makes an event."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.lease import Lease
from controller.errors import InstanceNotFound, InstanceWithoutLease, LeaseLost
from controller.operations import Clock
from controller.records import instance_rows
from controller.records.lease_rows import write_lease

# A stream renews three times a lease, and at least so often: its messages also show that it is alive.
_PARTS: Final = 3
_MOST_SILENCE_S: Final = 15.0


class Leases:
    """Renews leases; `renewed` is told of each."""

    def __init__(self, database: Database, clock: Clock, renewed: Callable[[str, Lease], None]) -> None:
        self._database = database
        self._clock = clock
        self._renewed = renewed
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End every stream: the service stops, and whoever holds one comes back."""
        self._closing.set()

    async def renew(self, name: str) -> Lease:
        """Give the lease its whole length again.

        Raises:
            InstanceNotFound: There is no such instance.
            InstanceWithoutLease: It has none.
            LeaseLost: It ran out already.
        """
        now = self._clock.now()

        def work(conn: Connection) -> tuple[str, Lease]:
            found = instance_rows.find_by_name(conn, name)
            if found is None:
                raise InstanceNotFound(name)
            if found.lease is None:
                raise InstanceWithoutLease(name)
            if found.lease.lost_time is not None:
                raise LeaseLost(name, found.lease.lost_time)
            lease = found.lease.renewed(now)
            write_lease(conn, found.id, lease)
            return found.id, lease

        instance_id, lease = await self._database.write(work)
        self._renewed(instance_id, lease)
        return lease

    async def hold(self, name: str) -> AsyncIterator[Lease]:
        """Renew the lease for as long as it is iterated, and yield it each time; ends with the service.

        Raises:
            InstanceNotFound, InstanceWithoutLease, LeaseLost: As `renew`, also later.
        """
        while not self._closing.is_set():
            lease = await self.renew(name)
            yield lease
            await self._pause(min(lease.duration_s / _PARTS, _MOST_SILENCE_S))

    async def _pause(self, delay_s: float) -> None:
        tasks = [
            asyncio.ensure_future(self._closing.wait()),
            asyncio.ensure_future(self._clock.sleep(delay_s)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
