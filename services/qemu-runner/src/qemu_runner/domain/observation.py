"""What is seen of a machine now. An observation decides nothing by itself."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from qemu_runner.domain.boot import ReachedPhase
from qemu_runner.domain.cloud_init import CloudInitReport
from qemu_runner.domain.machine import MachineId, MachinePhase, MachineSpec, Nic
from qemu_runner.domain.probe import CloudInitState, ProbeResult
from qemu_runner.domain.record import MachineExit
from qemu_runner.domain.room import Room
from qemu_runner.domain.trouble import Trouble

PASST_EXITED = "PASST_EXITED"
"""The network fault of a machine whose passt has ended."""

_INFO_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a NIC, and who says so.

    "reserved": its own on qc0; "user": given by the user network; "agent": the guest; "neighbour": the
    host's table of neighbours.
    """

    address: str
    family: str
    source: str


@dataclass(frozen=True, slots=True)
class NicState:
    """A NIC and its addresses."""

    nic: Nic
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestOs:
    """The os-release fields that the agent reports; empty where it does not."""

    id: str = ""
    name: str = ""
    pretty_name: str = ""
    version: str = ""
    kernel_release: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class GuestTimeZone:
    """The guest's time zone; its name as the guest abbreviates it, which may change with the season."""

    name: str
    offset_s: int


@dataclass(frozen=True, slots=True)
class GuestInterface:
    """An interface as the agent sees it."""

    mac: str
    addresses: tuple[Address, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class GuestInfo:
    """What the agent told, cut to bounds: the guest is hostile."""

    hostname: str = ""
    os: GuestOs = field(default_factory=GuestOs)
    interfaces: tuple[GuestInterface, ...] = ()
    time_zone: GuestTimeZone | None = None

    def bounded(self) -> "GuestInfo":
        """Return as much of it as has room in 16 KiB: the names, then interfaces as they come."""
        room = Room(_INFO_BYTES)
        os, zone = self.os, self.time_zone
        room.takes(self.hostname, os.id, os.name, os.pretty_name, os.version, os.kernel_release, os.machine)
        room.takes("" if zone is None else zone.name)
        return replace(
            self,
            interfaces=tuple(
                replace(one, addresses=tuple(a for a in one.addresses if _has_room(room, a)))
                for one in self.interfaces
                if room.takes(one.mac, one.name)
            ),
        )


@dataclass(frozen=True, slots=True)
class AgentState:
    """Whether an agent answers, since when, and what it told."""

    connected: bool = False
    since: datetime | None = None
    info: GuestInfo | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything the runner tells about a machine."""

    machine_id: MachineId
    phase: MachinePhase
    fence: int = 0
    revision: int = 0
    run_state: str = ""
    incarnation: int = 0
    exit: MachineExit | None = None
    accelerator: str = ""
    nics: tuple[NicState, ...] = ()
    agent: AgentState = field(default_factory=AgentState)
    boot_phases: tuple[ReachedPhase, ...] = ()
    start_time: datetime | None = None
    spec: MachineSpec | None = None
    network_fault: str = ""
    boots: int = 0
    boot_time: datetime | None = None
    panicked: bool = False
    io_error: str = ""
    probes: tuple[ProbeResult, ...] = ()
    cloud_init: CloudInitState = field(default_factory=CloudInitState)
    troubles: tuple[Trouble, ...] = ()
    cloud_init_report: CloudInitReport | None = None

    @property
    def guest_runs(self) -> bool:
        """Whether QEMU says that the guest's CPUs run, and its kernel has not given up."""
        return self.run_state == "running" and not self.panicked


def _has_room(room: Room, address: Address) -> bool:
    return room.takes(address.address, address.family, address.source)
