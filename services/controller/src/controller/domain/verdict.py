"""What a machine's observation means for the state of its instance."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.lifecycle import ENDS, LOSSES, TRANSITIONS, Event, InstanceState
from controller.domain.machine import IO_ERROR, Machine, MachinePhase

GUEST_SHUTDOWN: Final = "GUEST_SHUTDOWN"
HOST_SHUTDOWN: Final = "HOST_SHUTDOWN"
STOPPED: Final = "STOPPED"
START_FAILED: Final = "START_FAILED"

# States that an operation has in its hands.
_IN_OPERATION: Final = frozenset(
    {InstanceState.CREATING, InstanceState.STARTING, InstanceState.STOPPING, InstanceState.DELETING}
)


class Reason(StrEnum):
    """Why an instance is FAILED; a newer runner may tell others, which are passed on as they are."""

    QEMU_EXITED = "QEMU_EXITED"
    QEMU_KILLED = "QEMU_KILLED"
    QEMU_BROKE = "QEMU_INTERNAL_ERROR"
    KERNEL_PANIC = "KERNEL_PANIC"
    VM_HOST_EXITED = "VM_HOST_EXITED"
    HOST_RESTARTED = "HOST_RESTARTED"
    MACHINE_LOST = "MACHINE_LOST"


_EVENT_OF_END: Final = {
    STOPPED: Event.IS_OFF,
    GUEST_SHUTDOWN: Event.GUEST_SHUT_DOWN,
    HOST_SHUTDOWN: Event.HOST_SHUT_DOWN,
    Reason.QEMU_EXITED: Event.QEMU_EXITED,
    Reason.QEMU_KILLED: Event.QEMU_KILLED,
    Reason.QEMU_BROKE: Event.QEMU_BROKE,
    Reason.KERNEL_PANIC: Event.GUEST_PANICKED,
    Reason.VM_HOST_EXITED: Event.VM_HOST_GONE,
    Reason.HOST_RESTARTED: Event.HOST_RESTARTED,
    Reason.MACHINE_LOST: Event.MACHINE_LOST,
}


class Observation(StrEnum):
    """Kinds of the system's own operations."""

    STOP = "observe-stop"
    FAILURE = "observe-failure"
    RUN = "observe-run"
    PAUSE = "observe-pause"
    AGAIN = "observe-again"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state's event that an observation stands for, and why."""

    event: Event
    reason: str = ""
    message: str = ""

    @property
    def observation(self) -> Observation:
        """The operation that moves the state accordingly."""
        if self.event in ENDS:
            return Observation.STOP
        if self.event in LOSSES:
            return Observation.FAILURE
        return Observation.RUN if self.event is Event.IS_RUNNING else Observation.PAUSE


def judge(state: InstanceState, machine: Machine) -> Verdict | None:
    """Return what contradicts `state`; None if nothing does or the state is in an operation's hands."""
    verdict = None if state in _IN_OPERATION else seen(machine)
    if verdict is None or TRANSITIONS[state, verdict.event] is state:
        return None
    return verdict


def seen(machine: Machine) -> Verdict | None:
    """Return the event that `machine` as it is stands for; None while it is between two."""
    if machine.phase is not MachinePhase.ACTIVE:
        return ended(machine)
    if machine.panicked:
        return Verdict(Event.GUEST_PANICKED, Reason.KERNEL_PANIC, "The guest's kernel panicked.")
    match machine.run_state:
        case "running":
            return Verdict(Event.IS_RUNNING)
        case "paused":
            return Verdict(Event.IS_PAUSED)
        case "io-error":
            return Verdict(Event.DISK_FAILED, IO_ERROR, machine.why_io_error)
        case "internal-error":
            message = "QEMU stopped the guest for a fault of its own or of the accelerator."
            return Verdict(Event.QEMU_BROKE, Reason.QEMU_BROKE, message)
        case _:
            return None


def ended(machine: Machine) -> Verdict:
    """Return what it means that a machine has no process."""
    end = machine.exit
    if machine.phase is not MachinePhase.EXITED or end is None:
        message = "The runner has no process of the machine and no record of its end."
        if machine.phase is MachinePhase.ABSENT:
            message = "The runner does not know the machine any more; a start makes it anew from its image."
        return Verdict(Event.MACHINE_LOST, Reason.MACHINE_LOST, message)
    return Verdict(_EVENT_OF_END.get(end.reason, Event.QEMU_EXITED), end.reason, end.message)


def loss_of(reason: str) -> Event:
    """Return the event that a machine lost for `reason` is; START_FAILED for what is none of the losses."""
    event = _EVENT_OF_END.get(reason, Event.START_FAILED)
    return event if event in LOSSES else Event.START_FAILED
