"""Time and ids, injected so that tests own them.

Nothing else in the package may ask the system for the time.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from controller.operations.operation import OperationId

STEP_VARIABLE: Final = "QC_CLOCK_STEP_FILE"
# A clock that is only slewed (adjtime) loses less between two looks.
_SET_BACK_S: Final = 1.0


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


class SteppedClock(SystemClock):
    """The process's clocks on a host whose wall clock a test sets: a file says how many seconds ahead.

    Without the file it is right. The monotonic clock is the host's: nobody sets that.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> datetime:
        ahead_s = 0.0
        with suppress(FileNotFoundError):
            ahead_s = float(self._file.read_text(encoding="utf-8"))
        return super().now() + timedelta(seconds=ahead_s)


class StepsBack:
    """Notices that a wall clock was set back between two looks, by the monotonic clock beside it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s = self._wall_less_monotonic_s()

    def noticed(self) -> bool:
        """Tell whether it was set back since the last look."""
        before, self._ahead_s = self._ahead_s, self._wall_less_monotonic_s()
        return self._ahead_s < before - _SET_BACK_S

    def _wall_less_monotonic_s(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()


def wall_clock_of(environ: Mapping[str, str]) -> SystemClock:
    """Return the process's clock, or the one that the environment says a test sets (ADR 89)."""
    file = environ.get(STEP_VARIABLE, "")
    return SteppedClock(Path(file)) if file else SystemClock()


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
