"""What is laid down for the time when nobody looks: restarting, starting again, ending, protection.

It holds the wishes, their faults and the values that come of them. What follows from them at which moment is
told by `restarting` and `enforcement`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from controller.domain.fault import Fault
from controller.domain.lease import MAX_LEASE_S, MIN_LEASE_S, Lease, begun


class RestartPolicy(StrEnum):
    """What starts an instance again that is wanted running."""

    NEVER = "never"
    # A machine that was lost or failed.
    ON_FAILURE = "on-failure"
    # Also a guest that has powered itself off.
    ALWAYS = "always"


class OnExpire(StrEnum):
    """What becomes of an instance whose time has run out."""

    STOP = "stop"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The policies of one instance; `expire_time` None: it has no end."""

    restart: RestartPolicy = RestartPolicy.NEVER
    autostart: bool = False
    expire_time: datetime | None = None
    on_expire: OnExpire = OnExpire.DELETE
    protected: bool = False

    def expired(self, now: datetime) -> bool:
        """Whether its time has run out."""
        return self.expire_time is not None and self.expire_time <= now


@dataclass(frozen=True, slots=True)
class Restarts:
    """How far restarting has come.

    Attributes:
        count: Restarts since it last ran stably or a user started it.
        next_time: When it is started next; None: not.
        running_since: When it was last seen to begin to run.
    """

    count: int = 0
    next_time: datetime | None = None
    running_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWish:
    """Policies as they were asked for; None stays as it is.

    Attributes:
        endless: Take the end away.
        leaseless: Take the lease away.
    """

    restart: RestartPolicy | None = None
    autostart: bool | None = None
    ttl_s: float | None = None
    expire_time: datetime | None = None
    endless: bool = False
    on_expire: OnExpire | None = None
    protected: bool | None = None
    lease_s: float | None = None
    leaseless: bool = False

    def faults(self, create_time: datetime, now: datetime) -> Iterator[Fault]:
        """Tell what is wrong with it for an instance created then."""
        if self.ttl_s is not None and self.expire_time is not None:
            yield Fault("/expireTime", "excludes ttl: give one of the two")
        if self.ttl_s is not None and create_time + timedelta(seconds=self.ttl_s) <= now:
            yield Fault("/ttl", "has run out already: it counts from the instance's createTime")
        if self.expire_time is not None and self.expire_time <= now:
            yield Fault("/expireTime", "lies in the past")
        if self.lease_s is not None and not MIN_LEASE_S <= self.lease_s <= MAX_LEASE_S:
            yield Fault("/lease", f"must be {MIN_LEASE_S:.0f}s to {MAX_LEASE_S / 3600:.0f}h")

    def applied(self, policies: Policies, create_time: datetime) -> Policies:
        """Return `policies` as they are wanted."""
        expire_time = None if self.endless else policies.expire_time
        if self.ttl_s is not None:
            expire_time = create_time + timedelta(seconds=self.ttl_s)
        return replace(
            policies,
            restart=self.restart or policies.restart,
            autostart=policies.autostart if self.autostart is None else self.autostart,
            expire_time=self.expire_time or expire_time,
            on_expire=self.on_expire or policies.on_expire,
            protected=policies.protected if self.protected is None else self.protected,
        )

    def lease_of(self, lease: Lease | None, now: datetime) -> Lease | None:
        """Return the lease as it is wanted: a new one where the present one is lost or of another length."""
        if self.leaseless:
            return None
        if self.lease_s is None or (lease and not lease.lost and lease.duration_s == self.lease_s):
            return lease
        return begun(self.lease_s, now, None if lease is None else lease.beats + 1)
