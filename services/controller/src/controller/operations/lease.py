"""This process's lease: its word, kept in the database, that it is alive and at work on what it has claimed.

It owns `engines`, one row per process. Times in it are the database's alone; what this process trusts itself
by is its own monotonic clock. A lease that has run out is never revived: its owner begins anew under another
name, since whatever it held may be another's by now.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select, text, update

from controller.database import Database, DatabaseError, UtcDateTime
from controller.operations.clock import Clock
from controller.operations.metrics import Metrics
from controller.operations.rows import engines, operations

_log = logging.getLogger(__name__)

# Pause between two tries while the lease is not held.
_ANXIOUS_S = 0.5
_NOW: Any = func.statement_timestamp(type_=UtcDateTime())
_UNTIL = "statement_timestamp() + make_interval(secs => :lease_s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Seconds.

    Attributes:
        lease_s: How long after a renewal others may take over.
        renew_every_s: Pause between two renewals.
        fence_after_s: How long after the last renewal this process still trusts itself; well below `lease_s`.
    """

    lease_s: float = 10.0
    renew_every_s: float = 2.5
    fence_after_s: float = 6.0


class Lease:
    """Taken by `take`, kept by `keep`. Where the database is not shared it is the file's lock, and eternal.

    Attributes:
        owner: The name under which this process claims; another after each loss.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        settings: LeaseSettings,
        time_told: Callable[[datetime, float], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._time_told = time_told
        self._renewed_at: float | None = None
        self._held_again = asyncio.Event()
        self.owner = _new_name()

    @property
    def held(self) -> bool:
        """Whether this process may act on what it has claimed."""
        return not self._database.shared or self._left_s() > 0

    async def take(self) -> int:
        """Begin; return how many operations were taken from owners that are surely gone.

        Raises:
            DatabaseError: The lease cannot be had.
        """
        if not self._database.shared:
            return await self._database.write(release_all)
        began = self._clock.monotonic()
        now = await self._database.beat(lambda conn: _register(conn, self.owner, self._settings.lease_s))
        self._renewed(now, began)
        return 0

    async def keep(self, lost: Callable[[], None], renewed: Callable[[], None]) -> None:
        """Renew for ever; survives outages.

        Args:
            lost: Called at once when this process may not act any more.
            renewed: Called after each renewal, which is a good moment to look for what others have left.
        """
        while True:
            await self._clock.sleep(self._settings.renew_every_s if self.held else _ANXIOUS_S)
            try:
                await self._beat(lost)
                renewed()
            except DatabaseError as exc:
                _log.warning("the lease was not renewed", extra={"owner": self.owner, "error": str(exc)})
            except Exception:  # noqa: BLE001 - a dead heart would let steps go on without a lease
                self._metrics.loop_errors.labels("lease").inc()
                _log.exception("renewing the lease failed")

    async def guard(self, lost: Callable[[], None]) -> None:
        """Call `lost` when renewing has failed for too long, however the database hangs; for ever."""
        while True:
            self._held_again.clear()
            while (left_s := self._left_s()) > 0:
                await self._clock.sleep(left_s)
            _log.error("the lease was not renewed in time", extra={"owner": self.owner})
            lost()
            await self._held_again.wait()

    async def give_back(self) -> None:
        """End the lease, so that nobody waits for its end; what is still owned goes with it."""
        self._renewed_at = None
        try:
            await self._database.beat(
                lambda conn: conn.execute(delete(engines).where(engines.c.owner == self.owner))
            )
        except DatabaseError as exc:
            _log.warning("the lease was left to run out", extra={"owner": self.owner, "error": str(exc)})

    async def _beat(self, lost: Callable[[], None]) -> None:
        began = self._clock.monotonic()
        owner, lease_s = self.owner, self._settings.lease_s
        now = await self._database.beat(lambda conn: _renew(conn, owner, lease_s))
        if now is None:
            self._renewed_at = None
            self._metrics.leases_lost.inc()
            _log.error("the lease has run out", extra={"owner": owner})
            lost()
            self.owner = _new_name()
            await self.take()
        else:
            self._renewed(now, began)

    def _renewed(self, now: datetime, began: float) -> None:
        self._renewed_at = began
        self._held_again.set()
        self._time_told(now, self._clock.monotonic())

    def _left_s(self) -> float:
        if self._renewed_at is None:
            return 0.0
        return self._settings.fence_after_s - (self._clock.monotonic() - self._renewed_at)


def release_all(conn: Connection) -> int:
    """Take every row from its owner, who is dead since the caller holds the only lock; return how many."""
    return conn.execute(update(operations).where(operations.c.owner.is_not(None)).values(owner=None)).rowcount


def release_dead(conn: Connection) -> int:
    """Bury owners whose lease has run out, and take from them and from the unknown what they hold."""
    conn.execute(delete(engines).where(engines.c.lease_until <= _NOW))
    orphaned = operations.c.owner.is_not(None) & ~exists().where(engines.c.owner == operations.c.owner)
    return conn.execute(update(operations).where(orphaned).values(owner=None)).rowcount


def stands(conn: Connection, owner: str) -> bool:
    """Whether the owner's lease is still good, by the database's clock."""
    good = select(engines.c.owner).where(engines.c.owner == owner, engines.c.lease_until > _NOW)
    return conn.execute(good).one_or_none() is not None


def _register(conn: Connection, owner: str, lease_s: float) -> datetime:
    conn.execute(insert(engines).values(owner=owner, lease_until=text(_UNTIL).bindparams(lease_s=lease_s)))
    return _now(conn)


def _renew(conn: Connection, owner: str, lease_s: float) -> datetime | None:
    renewed = conn.execute(
        update(engines)
        .where(engines.c.owner == owner, engines.c.lease_until > _NOW)
        .values(lease_until=text(_UNTIL).bindparams(lease_s=lease_s))
    ).rowcount
    return _now(conn) if renewed else None


def _now(conn: Connection) -> datetime:
    now: datetime = conn.execute(select(_NOW)).scalar_one()
    return now


def _new_name() -> str:
    return f"engine-{uuid.uuid4().hex[:12]}"
