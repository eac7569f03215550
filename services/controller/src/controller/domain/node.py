"""Nodes as their runners report them, and what a node's own checks find."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class NodeState(StrEnum):
    """Whether the node takes machines."""

    READY = "READY"
    DRAINING = "DRAINING"
    UNREACHABLE = "UNREACHABLE"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A way to run guests; `reason` says why it is not usable."""

    name: str
    usable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class VmHost:
    """A parent of QEMU processes: READY takes new machines, DRAINING keeps those that it has."""

    name: str
    generation: str
    qemu_version: str
    state: NodeState
    machines: int
    since: datetime | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One host; sizes in MiB. `speed_factor` is relative to hardware virtualisation.

    What is allocated, and the limit of that, is the controller's to say.
    """

    name: str
    state: NodeState
    arch: str = ""
    qemu_version: str = ""
    accelerators: tuple[Accelerator, ...] = ()
    accelerator: str = ""
    speed_factor: float = 1.0
    cpus_total: int = 0
    cpus_allocated: int = 0
    cpus_limit: int = 0
    memory_total_mib: int = 0
    memory_allocated_mib: int = 0
    memory_limit_mib: int = 0
    disk_total_mib: int = 0
    disk_free_mib: int = 0
    disk_allocated_mib: int = 0
    disk_limit_mib: int = 0
    message: str = ""
    vm_hosts: tuple[VmHost, ...] = ()


@dataclass(frozen=True, slots=True)
class Leak:
    """An object on the host that nobody claims."""

    kind: str
    name: str
    owner: str
    since: datetime | None


class CheckStatus(StrEnum):
    """Outcome of a doctor's check."""

    PASS = "PASS"  # noqa: S105 - not a password
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the doctor; `fix` says what to do."""

    name: str
    status: CheckStatus
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something that the service needs, and whether it is there."""

    name: str
    up: bool
    since: datetime | None
    detail: str


@dataclass(frozen=True, slots=True)
class Host:
    """What a runner says of its host: the node, and each vm-host."""

    node: Node
    dependencies: tuple[Dependency, ...]
