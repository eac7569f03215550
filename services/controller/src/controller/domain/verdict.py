"""What a machine's observation means for the state of its instance."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.lifecycle import Event, InstanceState
from controller.domain.machine import Machine, MachinePhase

GUEST_SHUTDOWN: Final = "GUEST_SHUTDOWN"
HOST_SHUTDOWN: Final = "HOST_SHUTDOWN"
STOPPED: Final = "STOPPED"
MACHINE_LOST: Final = "MACHINE_LOST"
# Exits that were wanted by somebody: the guest, the host's owner, us.
_ORDERLY: Final = frozenset({GUEST_SHUTDOWN, HOST_SHUTDOWN, STOPPED})


class Observation(StrEnum):
    """Kinds of the system's own operations."""

    STOP = "observe-stop"
    FAILURE = "observe-failure"
    RUN = "observe-run"
    PAUSE = "observe-pause"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state's event that an observation stands for, and why."""

    event: Event
    reason: str = ""
    message: str = ""

    @property
    def observation(self) -> Observation:
        """The operation that moves the state accordingly."""
        match self.event:
            case Event.IS_OFF:
                return Observation.STOP
            case Event.IS_RUNNING:
                return Observation.RUN
            case Event.IS_PAUSED:
                return Observation.PAUSE
            case _:
                return Observation.FAILURE


def judge(state: InstanceState, machine: Machine) -> Verdict | None:
    """Return what contradicts `state`; None if nothing does or the state is in an operation's hands."""
    match state:
        case InstanceState.RUNNING | InstanceState.PAUSED:
            return _of_powered_on(state, machine)
        case InstanceState.STOPPED | InstanceState.FAILED:
            if machine.running:
                return Verdict(Event.IS_RUNNING)
            return Verdict(Event.IS_PAUSED) if machine.paused else None
        case (
            InstanceState.CREATING | InstanceState.STARTING | InstanceState.STOPPING | InstanceState.DELETING
        ):
            return None


def _of_powered_on(state: InstanceState, machine: Machine) -> Verdict | None:
    if machine.phase is MachinePhase.ACTIVE:
        if state is InstanceState.PAUSED and machine.running:
            return Verdict(Event.IS_RUNNING)
        if state is InstanceState.RUNNING and machine.paused:
            return Verdict(Event.IS_PAUSED)
        return None
    return ended(machine)


def ended(machine: Machine) -> Verdict:
    """Return what the end of a machine that was wanted running means."""
    if machine.phase is not MachinePhase.EXITED or machine.exit is None:
        return Verdict(
            Event.IS_LOST, MACHINE_LOST, "The runner has no process of the machine and no record of its end."
        )
    if machine.exit.reason in _ORDERLY:
        return Verdict(Event.IS_OFF, machine.exit.reason, machine.exit.message)
    return Verdict(Event.IS_LOST, machine.exit.reason, machine.exit.message)
