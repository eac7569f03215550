"""A lease: whoever uses an instance says so again and again, or it is taken away."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

MIN_LEASE_S: Final = 1.0
MAX_LEASE_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease.

    Attributes:
        beats: Rises with every renewal, and never comes back: tells a controller that another one, or
            another lease, was in between.
        expire_time: When it runs out as people see it. What decides is the monotonic clock of a controller.
        lost_time: When it ran out; None while it is held.
    """

    duration_s: float
    beats: int
    expire_time: datetime
    lost_time: datetime | None = None

    @property
    def lost(self) -> bool:
        """Whether it ran out."""
        return self.lost_time is not None

    def renewed(self, now: datetime) -> "Lease":
        """Return it with its whole length before it, held."""
        return begun(self.duration_s, now, self.beats + 1)

    def ran_out(self, now: datetime) -> "Lease":
        """Return it lost."""
        return replace(self, lost_time=now)


def begun(duration_s: float, now: datetime, beats: int | None = None) -> Lease:
    """Return a lease that begins now; one without a predecessor begins to count at the time."""
    if beats is None:
        beats = int(now.timestamp() * 1_000_000)
    return Lease(duration_s, beats, now + timedelta(seconds=duration_s))
