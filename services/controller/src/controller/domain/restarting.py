"""When a machine that has ended is started again: pure functions of the instance, the time and the rules.

The plan is stored with the very change of state that calls for it, so that no crash lies between the two.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from controller.domain.instance import DesiredPower, Instance
from controller.domain.lifecycle import InstanceState
from controller.domain.policy import RestartPolicy, Restarts
from controller.domain.verdict import GUEST_SHUTDOWN, HOST_SHUTDOWN

RESTART_LIMIT_REACHED: Final = "RESTART_LIMIT_REACHED"

# Ends that the host's owner brought about: no fault of the machine, so they are not counted.
_HOST_WENT_DOWN: Final = frozenset({HOST_SHUTDOWN, "HOST_RESTARTED"})
_AUTOSTARTED: Final = _HOST_WENT_DOWN | {"VM_HOST_EXITED"}
_ENDED: Final = frozenset({InstanceState.FAILED, InstanceState.STOPPED})
_POWERED: Final = frozenset({InstanceState.RUNNING, InstanceState.PAUSED})
# 2 ** 64 seconds are beyond every maximum.
_MOST_DOUBLINGS: Final = 64


@dataclass(frozen=True, slots=True)
class RestartRules:
    """Delays between restarts, the run that makes them forgotten, and how many are tried without one."""

    delay_s: float = 1.0
    most_delay_s: float = 300.0
    reset_s: float = 600.0
    limit: int = 10

    def delay_before(self, restart: int) -> timedelta:
        """Return how long to wait before the restart of that number, counted from 0."""
        doubled = self.delay_s * 2.0 ** min(restart, _MOST_DOUBLINGS)
        return timedelta(seconds=min(doubled, self.most_delay_s))


class Cause(StrEnum):
    """Why an instance that has ended is to be started again."""

    HOST_CAME_BACK = "autostart"
    POLICY = "restart"


def cause_of(instance: Instance) -> Cause | None:
    """Return why `instance`, as it has ended, is to be started again; None if it is not."""
    if instance.state not in _ENDED or instance.desired_power is not DesiredPower.RUNNING:
        return None
    policies = instance.policies
    if policies.autostart and instance.reason in _AUTOSTARTED:
        return Cause.HOST_CAME_BACK if instance.reason in _HOST_WENT_DOWN else Cause.POLICY
    match policies.restart:
        case RestartPolicy.NEVER:
            return None
        case RestartPolicy.ON_FAILURE:
            wanted = instance.state is InstanceState.FAILED
        case RestartPolicy.ALWAYS:
            wanted = instance.state is InstanceState.FAILED or instance.reason == GUEST_SHUTDOWN
    return Cause.POLICY if wanted else None


def followed(before: Instance, after: Instance, now: datetime, rules: RestartRules) -> Instance:
    """Return `after`, which `before` has just become, with what that means for restarting."""
    if after.state is before.state:
        return after
    restarts = after.restarts
    if after.state in _POWERED:
        since = restarts.running_since if before.state in _POWERED else now
        return replace(after, restarts=Restarts(restarts.count, None, since))
    if after.state in _ENDED:
        return planned(after, now, rules)
    return replace(after, restarts=replace(restarts, next_time=None))


def planned(instance: Instance, now: datetime, rules: RestartRules) -> Instance:
    """Return `instance`, which has ended, with the time of its restart, or told that there is none."""
    count = 0 if is_stable(instance, now, rules) else instance.restarts.count
    match cause_of(instance):
        case None:
            return replace(instance, restarts=Restarts(count))
        case Cause.HOST_CAME_BACK:
            return replace(instance, restarts=Restarts(count, now))
        case Cause.POLICY:
            if count >= rules.limit:
                return _given_up(instance, count)
            return replace(instance, restarts=Restarts(count, now + rules.delay_before(count)))


def is_stable(instance: Instance, now: datetime, rules: RestartRules) -> bool:
    """Whether its present or last run is long enough to forget restarts."""
    since = instance.restarts.running_since
    return since is not None and now - since >= timedelta(seconds=rules.reset_s)


def begun(instance: Instance) -> Instance:
    """Return `instance`, which is being started again, with that restart counted."""
    counted = 1 if cause_of(instance) is Cause.POLICY else 0
    return replace(instance, restarts=Restarts(instance.restarts.count + counted))


def _given_up(instance: Instance, count: int) -> Instance:
    last = f"{instance.reason}: {instance.message}" if instance.message else instance.reason
    message = f"Restarted {count} times without a stable run, last after {last}"
    return replace(instance, reason=RESTART_LIMIT_REACHED, message=message, restarts=Restarts(count))
