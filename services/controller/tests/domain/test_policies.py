"""Every decision of the policies, as pure functions of the instance and the time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from controller.domain.enforcement import Deed, Reached, decide
from controller.domain.instance import DesiredPower, Instance, InstanceId, InstanceImage, Resources
from controller.domain.lifecycle import InstanceState
from controller.domain.policy import OnExpire, Policies, PolicyWish, RestartPolicy, Restarts
from controller.domain.readiness import Readiness
from controller.domain.restarting import RESTART_LIMIT_REACHED, RestartRules, begun, followed

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RULES = RestartRules(delay_s=1.0, most_delay_s=10.0, reset_s=60.0, limit=3)
BOTH = Reached(restart=True, stable=True)
S = InstanceState


def instance(
    state: InstanceState = S.RUNNING,
    reason: str = "",
    *,
    power: DesiredPower = DesiredPower.RUNNING,
    restarts: Restarts | None = None,
    operation: str = "",
    **policies: Any,
) -> Instance:
    return Instance(
        id=InstanceId("i"),
        name="web-1",
        image=InstanceImage("tiny", "", "", "qcow2", 1),
        arch="x86_64",
        resources=Resources(1, 128, 64),
        nics=(),
        labels={},
        readiness=Readiness(),
        node="node-1",
        state=state,
        reason=reason,
        desired_power=power,
        create_time=NOW,
        operation=operation,
        restarts=restarts or Restarts(),
        policies=Policies(**policies),
    )


def after(found: Instance, state: InstanceState, reason: str = "", now: datetime = NOW) -> Instance:
    return followed(found, replace(found, state=state, reason=reason), now, RULES)


@pytest.mark.parametrize(
    ("policy", "state", "reason", "planned"),
    [
        (RestartPolicy.NEVER, S.FAILED, "QEMU_EXITED", False),
        (RestartPolicy.ON_FAILURE, S.FAILED, "QEMU_EXITED", True),
        (RestartPolicy.ON_FAILURE, S.FAILED, "KERNEL_PANIC", True),
        (RestartPolicy.ON_FAILURE, S.STOPPED, "GUEST_SHUTDOWN", False),
        (RestartPolicy.ON_FAILURE, S.STOPPED, "", False),
        (RestartPolicy.ALWAYS, S.FAILED, "QEMU_EXITED", True),
        (RestartPolicy.ALWAYS, S.STOPPED, "GUEST_SHUTDOWN", True),
        (RestartPolicy.ALWAYS, S.STOPPED, "HOST_SHUTDOWN", False),
        (RestartPolicy.ALWAYS, S.STOPPED, "", False),
    ],
)
def test_which_end_is_followed_by_a_restart(
    policy: RestartPolicy, state: InstanceState, reason: str, planned: bool
) -> None:
    ended = after(instance(restart=policy), state, reason)
    assert (ended.restarts.next_time is not None) is planned


def test_what_a_user_has_stopped_is_never_restarted() -> None:
    stopped = instance(S.STOPPING, power=DesiredPower.STOPPED, restart=RestartPolicy.ALWAYS)
    for state, reason in ((S.STOPPED, ""), (S.FAILED, "QEMU_EXITED"), (S.STOPPED, "GUEST_SHUTDOWN")):
        assert after(stopped, state, reason).restarts.next_time is None


@pytest.mark.parametrize(
    ("count", "delay_s"), [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (10_000, 10.0)]
)
def test_the_delay_doubles_up_to_its_maximum(count: int, delay_s: float) -> None:
    assert RULES.delay_before(count) == timedelta(seconds=delay_s)


def test_after_the_limit_it_stays_failed_and_says_so_with_the_last_reason() -> None:
    worn = instance(restart=RestartPolicy.ON_FAILURE, restarts=Restarts(3, None, NOW))
    failed = after(worn, S.FAILED, "QEMU_EXITED", NOW + timedelta(seconds=1))
    assert (failed.state, failed.reason) == (S.FAILED, RESTART_LIMIT_REACHED)
    assert "QEMU_EXITED" in failed.message
    assert failed.restarts.next_time is None
    assert decide(failed, NOW, BOTH) is None


def test_a_stable_run_makes_restarts_forgotten() -> None:
    worn = instance(restart=RestartPolicy.ON_FAILURE, restarts=Restarts(3, None, NOW))
    failed = after(worn, S.FAILED, "QEMU_EXITED", NOW + timedelta(seconds=60))
    assert failed.restarts.next_time == NOW + timedelta(seconds=61)
    decision = decide(worn, NOW, BOTH)
    assert decision is not None
    assert decision.deed is Deed.FORGET


def test_a_pause_does_not_begin_the_run_anew() -> None:
    running = after(instance(S.STARTING), S.RUNNING)
    paused = after(running, S.PAUSED, now=NOW + timedelta(seconds=30))
    resumed = after(paused, S.RUNNING, now=NOW + timedelta(seconds=40))
    assert resumed.restarts.running_since == NOW


@pytest.mark.parametrize(
    ("state", "reason", "counted"),
    [
        (S.STOPPED, "HOST_SHUTDOWN", 0),
        (S.FAILED, "HOST_RESTARTED", 0),
        (S.FAILED, "VM_HOST_EXITED", 1),
    ],
)
def test_autostart_follows_the_ends_that_the_host_brought(
    state: InstanceState, reason: str, counted: int
) -> None:
    ended = after(instance(autostart=True), state, reason)
    assert ended.restarts.next_time is not None
    assert begun(ended).restarts == Restarts(counted)
    assert after(instance(), state, reason).restarts.next_time is None
    unwanted = instance(power=DesiredPower.STOPPED, autostart=True)
    assert after(unwanted, state, reason).restarts.next_time is None


def test_autostart_does_not_follow_a_crash() -> None:
    assert after(instance(autostart=True), S.FAILED, "QEMU_EXITED").restarts.next_time is None


def test_a_restart_is_due_only_when_its_time_has_come_and_nobody_holds_it() -> None:
    failed = after(instance(restart=RestartPolicy.ON_FAILURE), S.FAILED, "QEMU_EXITED")
    assert decide(failed, NOW, Reached()) is None
    assert decide(replace(failed, operation="op-1"), NOW, BOTH) is None
    decision = decide(failed, NOW, BOTH)
    assert decision is not None
    assert decision.deed is Deed.START


@pytest.mark.parametrize(
    ("state", "policies", "deed"),
    [
        (S.RUNNING, {}, Deed.DELETE),
        (S.STOPPED, {}, Deed.DELETE),
        (S.CREATING, {}, Deed.DELETE),
        (S.FAILED, {}, Deed.DELETE),
        (S.DELETING, {}, None),
        (S.RUNNING, {"on_expire": OnExpire.STOP}, Deed.STOP),
        (S.PAUSED, {"on_expire": OnExpire.STOP}, Deed.STOP),
        (S.STOPPED, {"on_expire": OnExpire.STOP}, None),
        (S.FAILED, {"on_expire": OnExpire.STOP}, None),
        (S.RUNNING, {"protected": True}, Deed.STOP),
        (S.STOPPED, {"protected": True}, None),
    ],
)
def test_what_is_done_when_the_time_has_run_out(
    state: InstanceState, policies: dict[str, Any], deed: Deed | None
) -> None:
    found = instance(state, expire_time=NOW, **policies)
    assert decide(found, NOW - timedelta(seconds=1), Reached()) is None
    decision = decide(found, NOW, Reached())
    assert (None if decision is None else decision.deed) is deed


def test_what_has_run_out_is_not_restarted() -> None:
    failed = instance(
        S.FAILED,
        "QEMU_EXITED",
        restarts=Restarts(0, NOW),
        restart=RestartPolicy.ALWAYS,
        expire_time=NOW,
        on_expire=OnExpire.STOP,
    )
    assert decide(failed, NOW, BOTH) is None


def test_a_stop_waits_for_the_operation_and_a_deletion_does_not() -> None:
    held = instance(operation="op-1", expire_time=NOW, on_expire=OnExpire.STOP)
    assert decide(held, NOW, Reached()) is None
    decision = decide(replace(held, policies=Policies(expire_time=NOW)), NOW, Reached())
    assert decision is not None
    assert decision.deed is Deed.DELETE


def test_a_protected_one_says_why_it_is_kept() -> None:
    decision = decide(instance(expire_time=NOW, protected=True), NOW, Reached())
    assert decision is not None
    assert "protected" in decision.message


def test_a_ttl_counts_from_the_creation_and_what_lies_behind_is_a_fault() -> None:
    wish = PolicyWish(ttl_s=3600.0)
    assert wish.applied(Policies(), NOW).expire_time == NOW + timedelta(hours=1)
    assert [fault.pointer for fault in wish.faults(NOW, NOW + timedelta(hours=2))] == ["/ttl"]
    late = PolicyWish(expire_time=NOW)
    assert [fault.pointer for fault in late.faults(NOW, NOW)] == ["/expireTime"]
    both = PolicyWish(ttl_s=3600.0, expire_time=NOW + timedelta(hours=1))
    assert [fault.pointer for fault in both.faults(NOW, NOW)] == ["/expireTime"]


def test_what_is_not_given_stays_and_an_end_can_be_taken_away() -> None:
    policies = Policies(restart=RestartPolicy.ALWAYS, autostart=True, expire_time=NOW, protected=True)
    assert PolicyWish().applied(policies, NOW) == policies
    assert PolicyWish(endless=True).applied(policies, NOW).expire_time is None
    assert PolicyWish(protected=False, autostart=False).applied(policies, NOW) == replace(
        policies, protected=False, autostart=False
    )
