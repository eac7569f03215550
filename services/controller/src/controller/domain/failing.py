"""What a failure leaves to be looked at: made from the machine's end at the moment the state turns FAILED."""

import signal
from datetime import datetime

from controller.domain.instance import Failure
from controller.domain.machine import MachineExit


def failure(reason: str, message: str, end: MachineExit | None, now: datetime) -> Failure:
    """Return what is kept of a failure; `end` is that of the process that failed, if there was one."""
    if end is None:
        return Failure(reason, message, now)
    return Failure(
        reason,
        message,
        end.time or now,
        end.code,
        "" if end.signal is None else signal_name(end.signal),
        end.stderr_tail,
        end.console_tail,
    )


def signal_name(number: int) -> str:
    """Return the name of a signal, its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
