"""What a node can hold, what an instance takes of it, and what is short when one more does not fit.

CPU and memory are taken while an instance is wanted running or has a process, its disk as long as it exists.
Nothing here is counted twice or forgotten: what is reserved follows from the instances themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.domain.instance import DesiredPower, Instance
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import MachinePhase
from controller.domain.node import Node
from controller.domain.shortage import Resource

# States in which there is a process, or soon will be.
POWERED_STATES: Final = frozenset(
    {InstanceState.STARTING, InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.STOPPING}
)
# States that say nothing of a process: the machine is asked as it was seen last.
UNTOLD_STATES: Final = frozenset({InstanceState.DELETING, InstanceState.FAILED})

# QEMU's own memory beside the guest's, measured (docs/capacity.md): code, heap and devices; a thread and its
# buffers for each CPU; what describes the guest's pages. Under emulation also the translated code, which
# grows with what the guest does, up to the size of QEMU's cache for it.
_QEMU_MIB: Final = 96
_QEMU_MIB_PER_CPU: Final = 16
_GUEST_MIB_PER_QEMU_MIB: Final = 128
_GUEST_MIB_PER_TRANSLATED_MIB: Final = 2
_MOST_TRANSLATED_MIB: Final = 1024
_TCG: Final = "tcg"


def is_emulated(node: Node) -> bool:
    """Whether new machines of the node get no hardware virtualisation."""
    return node.accelerator == _TCG


def overhead_mib(
    cpus: Any, memory_mib: Any, *, emulated: bool, least: Callable[[Any, Any], Any] = min
) -> Any:
    """Return what QEMU itself needs, in MiB; of numbers, or of columns with a `least` for them."""
    needed = _QEMU_MIB + _QEMU_MIB_PER_CPU * cpus + memory_mib // _GUEST_MIB_PER_QEMU_MIB
    if not emulated:
        return needed
    return needed + least(memory_mib // _GUEST_MIB_PER_TRANSLATED_MIB, _MOST_TRANSLATED_MIB)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is taken of a node; sizes in MiB, QEMU's own memory included."""

    cpus: int = 0
    memory_mib: int = 0
    disk_mib: int = 0

    def of(self, resource: Resource) -> int:
        """Return one of the three."""
        match resource:
            case Resource.CPUS:
                return self.cpus
            case Resource.MEMORY:
                return self.memory_mib
            case Resource.DISK:
                return self.disk_mib


@dataclass(frozen=True, slots=True)
class Overcommit:
    """How much may be promised of what a node has.

    Attributes:
        reserve_mib: Memory that is kept for the host itself; None: a twentieth, 512 MiB at least.
    """

    cpus: float = 16.0
    memory: float = 1.0
    disk: float = 4.0
    reserve_mib: int | None = None

    def limits(self, node: Node) -> Mapping[Resource, int]:
        """Return what may be reserved on `node`; what it does not tell the size of is left out."""
        kept = max(node.memory_total_mib // 20, 512) if self.reserve_mib is None else self.reserve_mib
        offered = max(node.memory_total_mib - kept, 0)
        totals = (
            (Resource.CPUS, node.cpus_total, int(node.cpus_total * self.cpus)),
            (Resource.MEMORY, node.memory_total_mib, int(offered * self.memory)),
            (Resource.DISK, node.disk_total_mib, int(node.disk_total_mib * self.disk)),
        )
        return {resource: limit for resource, total, limit in totals if total}


def is_powered(instance: Instance) -> bool:
    """Whether the instance takes CPU and memory."""
    if instance.desired_power is DesiredPower.RUNNING or instance.state in POWERED_STATES:
        return True
    machine = instance.machine if instance.state in UNTOLD_STATES else None
    return machine is not None and machine.phase is MachinePhase.ACTIVE


def reservation_of(instance: Instance, *, emulated: bool) -> Reservation:
    """Return what the instance takes as it stands."""
    resources = instance.resources
    if not is_powered(instance):
        return Reservation(disk_mib=resources.disk_mib)
    memory_mib = resources.memory_mib + overhead_mib(resources.cpus, resources.memory_mib, emulated=emulated)
    return Reservation(resources.cpus, memory_mib, resources.disk_mib)
