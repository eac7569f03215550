"""What observations mean for the state."""

import pytest
from controller.domain.lifecycle import LOSSES, TRANSITIONS, Event, InstanceState
from controller.domain.machine import Machine, MachineExit, MachinePhase
from controller.domain.verdict import Observation, Reason, judge, loss_of, seen

S = InstanceState
SETTLED = (S.STOPPED, S.RUNNING, S.PAUSED, S.FAILED)
IN_OPERATION = (S.CREATING, S.STARTING, S.STOPPING, S.DELETING)


def active(run_state: str, *, panicked: bool = False, io_error: str = "") -> Machine:
    return Machine(
        id="m", phase=MachinePhase.ACTIVE, run_state=run_state, panicked=panicked, io_error=io_error
    )


def exited(reason: str) -> Machine:
    return Machine(id="m", phase=MachinePhase.EXITED, exit=MachineExit(reason, "why"))


def without_end(phase: MachinePhase) -> Machine:
    return Machine(id="m", phase=phase)


# What is seen, and the event that it stands for.
SEEN: list[tuple[Machine, Event | None]] = [
    (active("running"), Event.IS_RUNNING),
    (active("running", panicked=True), Event.GUEST_PANICKED),
    (active("paused"), Event.IS_PAUSED),
    (active("io-error"), Event.DISK_FAILED),
    (active("internal-error"), Event.QEMU_BROKE),
    (active("prelaunch"), None),
    (active("shutdown"), None),
    (active("suspended"), None),
    (exited("STOPPED"), Event.IS_OFF),
    (exited("GUEST_SHUTDOWN"), Event.GUEST_SHUT_DOWN),
    (exited("HOST_SHUTDOWN"), Event.HOST_SHUT_DOWN),
    (exited("QEMU_EXITED"), Event.QEMU_EXITED),
    (exited("QEMU_KILLED"), Event.QEMU_KILLED),
    (exited("KERNEL_PANIC"), Event.GUEST_PANICKED),
    (exited("VM_HOST_EXITED"), Event.VM_HOST_GONE),
    (exited("HOST_RESTARTED"), Event.HOST_RESTARTED),
    (exited("OF_A_NEWER_RUNNER"), Event.QEMU_EXITED),
    (without_end(MachinePhase.ABSENT), Event.MACHINE_LOST),
    (without_end(MachinePhase.PREPARED), Event.MACHINE_LOST),
]


@pytest.mark.parametrize(("machine", "event"), SEEN)
def test_what_is_seen_stands_for_one_event(machine: Machine, event: Event | None) -> None:
    verdict = seen(machine)
    assert (None if verdict is None else verdict.event) is event


@pytest.mark.parametrize("state", SETTLED)
@pytest.mark.parametrize(("machine", "event"), SEEN)
def test_only_what_moves_the_state_contradicts_it(
    state: InstanceState, machine: Machine, event: Event | None
) -> None:
    moves = event is not None and TRANSITIONS[state, event] is not state
    assert (judge(state, machine) is not None) is moves


@pytest.mark.parametrize("state", IN_OPERATION)
@pytest.mark.parametrize(("machine", "event"), SEEN)
def test_what_an_operation_has_in_its_hands_is_not_judged(
    state: InstanceState, machine: Machine, event: Event | None
) -> None:
    del event
    assert judge(state, machine) is None


@pytest.mark.parametrize(
    ("machine", "observation"),
    [
        (exited("GUEST_SHUTDOWN"), Observation.STOP),
        (exited("QEMU_KILLED"), Observation.FAILURE),
        (active("io-error"), Observation.PAUSE),
    ],
)
def test_each_verdict_has_its_operation(machine: Machine, observation: Observation) -> None:
    verdict = judge(S.RUNNING, machine)
    assert verdict is not None
    assert verdict.observation is observation


def test_what_runs_in_a_failed_instance_is_running() -> None:
    verdict = judge(S.FAILED, active("running"))
    assert verdict is not None
    assert verdict.observation is Observation.RUN


def test_a_failure_keeps_the_reason_of_the_runner() -> None:
    verdict = judge(S.RUNNING, exited("OF_A_NEWER_RUNNER"))
    assert verdict is not None
    assert (verdict.reason, verdict.message) == ("OF_A_NEWER_RUNNER", "why")


def test_a_disk_error_names_the_cause_and_the_way_on() -> None:
    verdict = judge(S.RUNNING, active("io-error", io_error="disk0 is full."))
    assert verdict is not None
    assert verdict.reason == "IO_ERROR"
    assert verdict.message.startswith("disk0 is full.")
    assert "resume" in verdict.message


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_of_a_loss_is_a_loss(reason: Reason) -> None:
    assert loss_of(reason) in LOSSES


@pytest.mark.parametrize("reason", ["DEADLINE_EXCEEDED", "GUEST_SHUTDOWN", "DISK_FULL"])
def test_what_kept_a_start_from_ending_is_no_loss(reason: str) -> None:
    assert loss_of(reason) is Event.START_FAILED
