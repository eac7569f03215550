"""What observations mean for the state."""

import pytest
from controller.domain.lifecycle import Event, InstanceState
from controller.domain.machine import Machine, MachineExit, MachinePhase
from controller.domain.verdict import Observation, judge

S = InstanceState


def machine(phase: MachinePhase, run_state: str = "", reason: str = "") -> Machine:
    return Machine(
        id="m", phase=phase, run_state=run_state, exit=MachineExit(reason, "why") if reason else None
    )


@pytest.mark.parametrize(
    ("state", "seen", "event"),
    [
        (S.RUNNING, machine(MachinePhase.ACTIVE, "running"), None),
        (S.RUNNING, machine(MachinePhase.ACTIVE, "paused"), Event.IS_PAUSED),
        (S.RUNNING, machine(MachinePhase.ACTIVE, "prelaunch"), None),
        (S.PAUSED, machine(MachinePhase.ACTIVE, "running"), Event.IS_RUNNING),
        (S.RUNNING, machine(MachinePhase.EXITED, reason="GUEST_SHUTDOWN"), Event.IS_OFF),
        (S.PAUSED, machine(MachinePhase.EXITED, reason="HOST_SHUTDOWN"), Event.IS_OFF),
        (S.RUNNING, machine(MachinePhase.EXITED, reason="QEMU_EXITED"), Event.IS_LOST),
        (S.RUNNING, machine(MachinePhase.EXITED, reason="HOST_RESTARTED"), Event.IS_LOST),
        (S.RUNNING, machine(MachinePhase.ABSENT), Event.IS_LOST),
        (S.STOPPED, machine(MachinePhase.ACTIVE, "running"), Event.IS_RUNNING),
        (S.FAILED, machine(MachinePhase.EXITED, reason="QEMU_EXITED"), None),
        (S.STOPPED, machine(MachinePhase.PREPARED), None),
        (S.STARTING, machine(MachinePhase.EXITED, reason="QEMU_EXITED"), None),
        (S.DELETING, machine(MachinePhase.ABSENT), None),
    ],
)
def test_only_what_contradicts_the_state_is_a_verdict(
    state: InstanceState, seen: Machine, event: Event | None
) -> None:
    verdict = judge(state, seen)
    assert (None if verdict is None else verdict.event) is event


def test_a_lost_machine_is_observed_as_a_failure_with_the_runners_reason() -> None:
    verdict = judge(S.RUNNING, machine(MachinePhase.EXITED, reason="KERNEL_PANIC"))
    assert verdict is not None
    assert (verdict.observation, verdict.reason) == (Observation.FAILURE, "KERNEL_PANIC")
