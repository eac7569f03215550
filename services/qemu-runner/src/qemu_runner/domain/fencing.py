"""Who may act on a machine: the one who holds the highest fence."""

from dataclasses import dataclass

from qemu_runner.domain.machine import MachineId


@dataclass(frozen=True, slots=True)
class Fencing:
    """Identity of a mutation.

    Attributes:
        machine_id: Which machine.
        fence: Number of the caller's claim; a lower one than was seen before is refused.
        request_id: Of the operation's step: a repetition joins the action in flight.
    """

    machine_id: MachineId
    fence: int
    request_id: str
