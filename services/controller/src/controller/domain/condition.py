"""Conditions: what is true of an instance beside its state, with the reason and the time of the last turn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from controller.domain.cloud_init import CloudInit, CloudInitStatus
from controller.domain.machine import IO_ERROR, KNOWN_BEFORE_BOOT, Machine, MachinePhase, NicView
from controller.domain.readiness import Readiness

RUNNER_UNREACHABLE: Final = "RUNNER_UNREACHABLE"
READINESS_TIMEOUT: Final = "READINESS_TIMEOUT"
KERNEL_PANIC: Final = "KERNEL_PANIC"


class ConditionStatus(StrEnum):
    """UNKNOWN is an answer of its own: nobody can tell at the moment."""

    TRUE = "TRUE"
    FALSE = "FALSE"
    UNKNOWN = "UNKNOWN"


class ConditionType(StrEnum):
    """The conditions that every instance has."""

    MACHINE_RUNNING = "MachineRunning"
    ADDRESS_ASSIGNED = "AddressAssigned"
    AGENT_CONNECTED = "AgentConnected"
    CLOUD_INIT_DONE = "CloudInitDone"
    GUEST_HEALTHY = "GuestHealthy"
    READY = "Ready"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; `last_transition_time` moves only when the status does."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    last_transition_time: datetime


@dataclass(frozen=True, slots=True)
class _Finding:
    status: ConditionStatus
    reason: str
    message: str = ""


# It travels in the metadata of a refusal, beside the console's last lines.
_MAX_EVIDENCE: Final = 1000

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_NOT_BOOTED: Final = _Finding(_UNKNOWN, "NotStarted", "The machine has not been started.")
_NOT_STARTED: Final = _Finding(_FALSE, "NotStarted", "The machine has not been started.")
_UNREACHABLE: Final = _Finding(
    _UNKNOWN, RUNNER_UNREACHABLE, "The runner of the node cannot be reached; the machine may well run."
)


@dataclass(frozen=True, slots=True)
class View:
    """What conditions are derived from.

    Attributes:
        reachable: Whether the runner that made the observation can be reached.
        speed_factor: Of the node's accelerator, 1 is full speed.
        nics: The NICs as they are shown; empty: as the machine's are.
    """

    machine: Machine | None
    has_nics: bool
    readiness: Readiness
    reachable: bool
    speed_factor: float
    nics: tuple[NicView, ...] = ()


def derive(view: View, before: Sequence[Condition], now: datetime) -> tuple[Condition, ...]:
    """Return all conditions as `view` shows them at `now`."""
    known = {condition.type: condition for condition in before}
    return tuple(
        _turned(known.get(kind), kind, finding, now) for kind, finding in _findings(view, now).items()
    )


def _findings(view: View, now: datetime) -> dict[ConditionType, _Finding]:
    if not view.reachable:
        return dict.fromkeys(ConditionType, _UNREACHABLE)
    return {
        ConditionType.MACHINE_RUNNING: _machine_running(view.machine),
        ConditionType.ADDRESS_ASSIGNED: _address_assigned(view),
        ConditionType.AGENT_CONNECTED: _agent_connected(view.machine),
        ConditionType.CLOUD_INIT_DONE: _cloud_init_done(view.machine),
        ConditionType.GUEST_HEALTHY: _guest_healthy(view.machine),
        ConditionType.READY: _ready(view, now),
    }


def _machine_running(machine: Machine | None) -> _Finding:
    if machine is None:
        return _NOT_STARTED
    match machine.phase:
        case MachinePhase.ABSENT | MachinePhase.PREPARING | MachinePhase.PREPARED:
            return _NOT_STARTED
        case MachinePhase.EXITED:
            if machine.exit is None:
                return _Finding(_FALSE, "Exited")
            return _Finding(_FALSE, machine.exit.reason, machine.exit.message)
        case MachinePhase.ACTIVE if machine.running:
            return _Finding(_TRUE, "QemuRunning")
        case MachinePhase.ACTIVE:
            return _not_running(machine)


def _not_running(machine: Machine) -> _Finding:
    if machine.panicked:
        return _Finding(_FALSE, "KERNEL_PANIC", "The guest's kernel panicked.")
    if machine.run_state == "io-error":
        return _Finding(_FALSE, IO_ERROR, machine.why_io_error)
    return _Finding(_FALSE, "QemuNotRunning", f"QEMU's run state is {machine.run_state or 'not known'}.")


def _address_assigned(view: View) -> _Finding:
    if not view.has_nics:
        return _Finding(_FALSE, "NoNic", "The instance has no NIC.")
    machine = view.machine
    if machine is not None and machine.network_fault:
        return _Finding(_FALSE, machine.network_fault, "The guest has lost its network.")
    nics = view.nics or (() if machine is None else machine.nics)
    sources = {one.source for nic in nics for one in nic.addresses}
    if sources and sources <= KNOWN_BEFORE_BOOT:
        # Its own from the launch on, whether it runs or not.
        return _Finding(_TRUE, "AddressReserved")
    if machine is None or machine.phase is not MachinePhase.ACTIVE:
        return _Finding(_FALSE, "MachineNotRunning")
    if sources:
        return _Finding(_TRUE, "AddressKnown")
    return _Finding(_FALSE, "NoAddressYet")


def _agent_connected(machine: Machine | None) -> _Finding:
    if machine is None or machine.phase is not MachinePhase.ACTIVE:
        return _Finding(_FALSE, "MachineNotRunning")
    if machine.agent_connected:
        return _Finding(_TRUE, "AgentAnswered")
    return _Finding(_FALSE, "NoAnswerYet", "The guest agent has not answered.")


def _cloud_init_done(machine: Machine | None) -> _Finding:
    if machine is None or machine.phase is not MachinePhase.ACTIVE:
        return _Finding(_FALSE, "MachineNotRunning")
    match machine.cloud_init:
        case CloudInit.DONE:
            return _Finding(_TRUE, "CloudInitFinished", _cloud_init_remarks(machine.cloud_init_status))
        case CloudInit.ERROR:
            modules = machine.cloud_init_status.failed_modules if machine.cloud_init_status else ()
            failed = f"Failed modules: {', '.join(modules)}." if modules else ""
            told = " ".join(filter(None, (failed, machine.cloud_init_detail)))
            return _Finding(_FALSE, "CLOUD_INIT_FAILED", told)
        case CloudInit.UNSEEN:
            # The image may have none.
            return _Finding(_UNKNOWN, "NotSeen", "Neither console nor agent has told that cloud-init ended.")


def _guest_healthy(machine: Machine | None) -> _Finding:
    """Return what the console tells of the guest's kernel and of how it booted; the worst is the reason."""
    if machine is None or machine.phase not in {MachinePhase.ACTIVE, MachinePhase.EXITED}:
        return _NOT_BOOTED
    told = _troubles(machine)
    exit_ = machine.exit if machine.phase is MachinePhase.EXITED else None
    if machine.panicked or (exit_ is not None and exit_.reason == KERNEL_PANIC):
        return _Finding(_FALSE, KERNEL_PANIC, told or "The guest's kernel panicked.")
    if machine.troubles:
        # Of a machine that has ended: of its last boot.
        return _Finding(_FALSE, machine.troubles[0].kind, told)
    if machine.phase is MachinePhase.EXITED:
        return _Finding(_UNKNOWN, "MachineNotRunning")
    return _Finding(_TRUE, "NoTroubleSeen")


def _troubles(machine: Machine) -> str:
    """Return what the console has told of, in words; empty: of nothing."""
    told = [
        f"{trouble.kind}{'' if trouble.count == 1 else f' ({trouble.count} times)'}: {trouble.line}"
        for trouble in machine.troubles
    ]
    return "; ".join(told)[:_MAX_EVIDENCE]


def _cloud_init_remarks(status: CloudInitStatus | None) -> str:
    if status is None or not (status.warnings or status.schema_errors):
        return ""
    if status.schema_errors:
        return f"Not as the schema wants it: {'; '.join(status.schema_errors)}."[:_MAX_EVIDENCE]
    return f"Finished with {len(status.warnings)} warnings."


def _ready(view: View, now: datetime) -> _Finding:
    machine = view.machine
    if machine is None or machine.phase is not MachinePhase.ACTIVE:
        return _Finding(_FALSE, "MachineNotRunning")
    if not machine.running:
        # A paused guest keeps its agent's connection and answers nobody.
        return _not_running(machine)
    missing = view.readiness.missing(machine)
    if not missing:
        return _Finding(_TRUE, "ProbesHold")
    names = ", ".join(missing)[:_MAX_EVIDENCE]
    give_up = view.readiness.gives_up_at(machine, view.speed_factor)
    trouble = f" The console tells of {_troubles(machine)}" if machine.troubles else ""
    if give_up is not None and now >= give_up:
        return _Finding(_FALSE, READINESS_TIMEOUT, f"Not in time: {names}.{trouble}")
    return _Finding(_FALSE, "ProbesMissing", f"Still missing: {names}.{trouble}")


def _turned(before: Condition | None, kind: ConditionType, finding: _Finding, now: datetime) -> Condition:
    if before is not None and before.status is finding.status:
        return replace(before, reason=finding.reason, message=finding.message)
    return Condition(kind.value, finding.status, finding.reason, finding.message, now)
