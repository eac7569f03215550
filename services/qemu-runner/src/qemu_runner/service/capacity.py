"""What the host offers to machines, and whether one more fits.

CPUs are shared, so a machine may not have more than there are, but machines together may. Memory is not.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qemu_runner.domain.machine import MachineId, MachineSpec
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

    def allocated(self, *, without: MachineId | None = None) -> HostSize:
        """Return what running machines hold, one of them left out."""
        runs = [r.run for r in self._records() if r.run is not None and r.machine_id != without]
        return HostSize(sum(run.cpus for run in runs), sum(run.memory_mib for run in runs))

    def require(self, machine_id: MachineId, spec: MachineSpec) -> None:
        """Check that the machine fits beside those that run.

        Raises:
            HostCapacityError: It does not.
        """
        if spec.cpus > self.size.cpus:
            raise HostCapacityError("cpus", spec.cpus, self.size.cpus, "CPUs")
        left = self.size.memory_mib - self.allocated(without=machine_id).memory_mib
        if spec.memory_mib > left:
            raise HostCapacityError("memory", spec.memory_mib, max(left, 0), "MiB")
