"""What a long action tells while it is at work."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes moved so far."""

    done: int
    total: int


class StopStep(StrEnum):
    """How a machine is being ended; each step is harsher than the one before."""

    POWERDOWN = "POWERDOWN"
    QUIT = "QUIT"
    KILL = "KILL"


Part = Transfer | StopStep
