"""Why a machine's process ended: one pure function over what is known of it."""

import re
import signal
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from qemu_runner.domain.record import ExitReason, MachineExit, Run

# QEMU obeys SIGTERM, SIGINT and SIGHUP and exits with 0, as if the guest had powered off; its own words.
_TERMINATED: Final = re.compile(r"^\S+: terminating on signal (\d{1,2})\b", re.MULTILINE)
_BY_SIGNAL: Final = "host-signal"
_BY_MONITOR: Final = "host-qmp-quit"


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """An end as vm-host reported it.

    Attributes:
        code: Exit code, if it exited.
        signal: Signal number, if one ended it.
        host_shutdown: Whether vm-host itself was stopping.
        time: When (UTC).
    """

    code: int | None
    signal: int | None
    host_shutdown: bool
    time: datetime


@dataclass(frozen=True, slots=True)
class Tails:
    """What the process and its guest said last."""

    stderr: str = ""
    console: str = ""


def explain_end(run: Run, end: ProcessEnd, tails: Tails) -> MachineExit:
    """Return what an end that vm-host reported means for the machine."""
    obeyed = _TERMINATED.findall(tails.stderr)
    number = int(obeyed[-1]) if obeyed and end.code == 0 else end.signal
    reason, message = _reason(run, end, tails, number)
    if run.ending and reason is ExitReason.KERNEL_PANIC:
        # How the remains of a guest were ended says nothing of it.
        return MachineExit(reason, message, end.time, None, None, tails.stderr, tails.console)
    return MachineExit(reason, message, end.time, end.code, number, tails.stderr, tails.console)


def explain_loss(run: Run, boot_id: str, now: datetime, tails: Tails) -> MachineExit:
    """Return what it means that another vm-host serves the socket and does not know the machine."""
    if boot_id != run.boot_id:
        reason, message = ExitReason.HOST_RESTARTED, "The host was restarted while the machine ran."
    else:
        reason, message = ExitReason.VM_HOST_EXITED, "vm-host ended, and the machine with it."
    return MachineExit(reason, message, now, stderr_tail=tails.stderr, console_tail=tails.console)


def _reason(run: Run, end: ProcessEnd, tails: Tails, number: int | None) -> tuple[ExitReason, str]:
    if run.panicked:
        return ExitReason.KERNEL_PANIC, "The guest's kernel panicked."
    if run.ending:
        return ExitReason.STOPPED, "The machine was stopped as asked."
    if end.host_shutdown:
        return ExitReason.HOST_SHUTDOWN, "vm-host was asked to stop and ended the machine."
    # QEMU exits with 1 when the guest panics; while nobody listened the console is the only witness.
    if end.code == 1 and run.confirmed and "Kernel panic" in tails.console:
        return ExitReason.KERNEL_PANIC, "The guest's kernel panicked."
    if number is not None:
        return ExitReason.QEMU_KILLED, f"QEMU was ended by {_signal_name(number)}."
    if run.shutdown_cause == _BY_SIGNAL:
        return ExitReason.QEMU_KILLED, "QEMU was ended by a signal that it obeys."
    if run.shutdown_cause == _BY_MONITOR:
        return ExitReason.QEMU_EXITED, "QEMU was told to quit through its monitor."
    if end.code == 0:
        return ExitReason.GUEST_SHUTDOWN, "The guest powered itself off."
    return ExitReason.QEMU_EXITED, f"QEMU exited with code {end.code}."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
