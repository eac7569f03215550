"""What is to be done with an instance at a moment because of its policies: one pure function.

Ending goes before restarting. While an operation holds the instance nothing is decided but a deletion, which
supersedes it; whoever asks must ask again when it has ended.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState
from controller.domain.policy import OnExpire
from controller.domain.restarting import cause_of

EXPIRED: Final = "EXPIRED"
LEASE_LOST: Final = "LEASE_LOST"

_POWERED: Final = frozenset({InstanceState.RUNNING, InstanceState.PAUSED})
_KEPT: Final = " It is protected, so it is kept."


class Deed(StrEnum):
    """What a policy does."""

    START = "start"
    STOP = "stop"
    DELETE = "delete"
    # Take note that the lease has run out.
    LOSE = "lose lease"
    # Forget restarts: the run is stable.
    FORGET = "forget restarts"


@dataclass(frozen=True, slots=True)
class Decision:
    """A deed, and what the instance shows as its reason."""

    deed: Deed
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Reached:
    """Which of the stored times have come, measured by a clock that nobody sets."""

    restart: bool = False
    stable: bool = False
    lease: bool = False
    purge: bool = False


def decide(instance: Instance, now: datetime, reached: Reached) -> Decision | None:
    """Return what is to be done; None if nothing is, or not yet."""
    if instance.state is InstanceState.DELETING:
        return None
    lease = instance.lease
    lost = lease is not None and lease.lost
    if instance.policies.expired(now):
        return _at_the_end(instance, purge=lost and reached.purge)
    if lease is not None and not lost and reached.lease:
        return Decision(Deed.LOSE)
    if lost:
        return _without_holder(instance, purge=reached.purge)
    if instance.operation:
        return None
    restarts = instance.restarts
    if reached.restart and restarts.next_time is not None and cause_of(instance) is not None:
        return Decision(Deed.START)
    if reached.stable and restarts.count and instance.state is InstanceState.RUNNING:
        return Decision(Deed.FORGET)
    return None


def _at_the_end(instance: Instance, *, purge: bool) -> Decision | None:
    policies = instance.policies
    message = f"Its time ran out at {policies.expire_time:%Y-%m-%dT%H:%M:%SZ}."
    deletes = policies.on_expire is OnExpire.DELETE
    if deletes and not policies.protected:
        return Decision(Deed.DELETE, EXPIRED, message)
    if purge and not policies.protected:
        return _without_holder(instance, purge=True)
    return _powered_off(instance, Decision(Deed.STOP, EXPIRED, message + (_KEPT if deletes else "")))


def _without_holder(instance: Instance, *, purge: bool) -> Decision | None:
    message = "Its lease was not renewed in time."
    protected = instance.policies.protected
    if purge and not protected:
        return Decision(Deed.DELETE, LEASE_LOST, message)
    return _powered_off(instance, Decision(Deed.STOP, LEASE_LOST, message + (_KEPT if protected else "")))


def _powered_off(instance: Instance, stop: Decision) -> Decision | None:
    return stop if instance.state in _POWERED and not instance.operation else None
