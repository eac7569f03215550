"""Time and ids, injected so that tests own them.

Nothing else in the package may ask the system for the time.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from controller.operations.operation import OperationId


class Clock(Protocol):
    """A wall clock for what is stored and a monotonic one for what is measured."""

    def now(self) -> datetime:
        """Wall clock, UTC."""

    def monotonic(self) -> float:
        """Seconds; never goes back."""

    async def sleep(self, delay_s: float) -> None:
        """Return after that many seconds of the monotonic clock."""


class SystemClock:
    """The process's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


class DatabaseClock:
    """The database's wall clock: controllers on several hosts agree, and a clock set here moves nothing.

    Between two tellings it runs on the process's monotonic clock; before the first it is the process's own.
    """

    def __init__(self) -> None:
        self._told: tuple[datetime, float] | None = None

    def told(self, now: datetime, monotonic_s: float) -> None:
        """Take over what the database says the time was at that monotonic moment."""
        self._told = (now, monotonic_s)

    def now(self) -> datetime:
        if self._told is None:
            return datetime.now(UTC)
        now, at = self._told
        return now + timedelta(seconds=time.monotonic() - at)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


OperationIds = Callable[[], OperationId]


def uuid7_operation_ids(clock: Clock) -> OperationIds:
    """Return a source of `op-` + UUIDv7 (RFC 9562 §5.7) in hex."""

    def next_id() -> OperationId:
        milliseconds = int(clock.now().timestamp() * 1000)
        value = (milliseconds & (1 << 48) - 1) << 80 | secrets.randbits(80)
        value = value & ~(0xF << 76) | 0x7 << 76
        value = value & ~(0x3 << 62) | 0x2 << 62
        return OperationId(f"op-{value:032x}")

    return next_id
