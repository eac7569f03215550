"""What the host offers to machines, and whether one fits on it at all.

How much machines may take together is the controller's to decide, in the transaction that promises it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qemu_runner.domain.machine import MachineSpec
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import HostCapacityError


@dataclass(frozen=True, slots=True)
class HostSize:
    """What is offered to machines."""

    cpus: int
    memory_mib: int


class Capacity:
    """The host's size and what of it is in use.

    Args:
        size: What is offered.
        records: Returns all records.
    """

    def __init__(self, size: HostSize, records: Callable[[], Iterable[MachineRecord]]) -> None:
        self.size = size
        self._records = records

    def allocated(self) -> HostSize:
        """Return what running machines hold."""
        runs = [record.run for record in self._records() if record.run is not None]
        return HostSize(sum(run.cpus for run in runs), sum(run.memory_mib for run in runs))

    def require(self, spec: MachineSpec) -> None:
        """Check that the host is large enough for the machine.

        Raises:
            HostCapacityError: It does not.
        """
        if spec.cpus > self.size.cpus:
            raise HostCapacityError("cpus", spec.cpus, self.size.cpus, "CPUs")
        if spec.memory_mib > self.size.memory_mib:
            raise HostCapacityError("memory", spec.memory_mib, self.size.memory_mib, "MiB")
