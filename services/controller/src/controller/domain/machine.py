"""A machine as its runner reports it: an observation, which decides nothing by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from controller.domain.cloud_init import CloudInit, CloudInitStatus
from controller.domain.first_boot import FirstBoot
from controller.domain.probe import Probe

BRIDGE_PREFIX: Final = "bridge:"
"""Before the name of an existing bridge whose own network serves the guest."""

IO_ERROR: Final = "IO_ERROR"
"""Why QEMU holds a guest whose disk could not be read or written: nothing is lost, `resume` goes on."""
KNOWN_BEFORE_BOOT: Final = frozenset({"reserved", "static"})
"""Sources of addresses that are the NIC's own before the guest has booted."""

LIVE_PUBLISHING: Final = frozenset({"qc0"})
"""Networks whose published ports change while the guest runs; elsewhere they do at the next start."""


def publishing_nic(networks: Sequence[str]) -> int | None:
    """Return which NIC published ports belong to: the first that is not on a bridge of somebody else's."""
    return next((n for n, network in enumerate(networks) if not network.startswith(BRIDGE_PREFIX)), None)


class MachinePhase(StrEnum):
    """What the runner knows of the machine's process and files."""

    ABSENT = "ABSENT"
    PREPARING = "PREPARING"
    PREPARED = "PREPARED"
    ACTIVE = "ACTIVE"
    EXITED = "EXITED"


@dataclass(frozen=True, slots=True)
class MachineExit:
    """How the last process ended; `reason` is one of the runner's (GUEST_SHUTDOWN, QEMU_EXITED, …).

    Attributes:
        code: Exit code, if it exited.
        signal: Number of the signal, if one ended it.
    """

    reason: str
    message: str = ""
    stderr_tail: str = ""
    console_tail: str = ""
    code: int | None = None
    signal: int | None = None
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """A guest's port published on the host."""

    host: int
    guest: int
    protocol: str = "tcp"
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a NIC and where it is known from."""

    address: str
    family: str
    source: str


@dataclass(frozen=True, slots=True)
class NicView:
    """A NIC as it is."""

    network: str
    mac: str
    addresses: tuple[Address, ...] = ()
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestOs:
    """The os-release fields that the agent reports."""

    id: str = ""
    name: str = ""
    pretty_name: str = ""
    version: str = ""
    kernel_release: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class GuestTimeZone:
    """The guest's time zone, as it abbreviates it."""

    name: str
    offset_s: int


@dataclass(frozen=True, slots=True)
class GuestInterface:
    """An interface as the guest sees it."""

    name: str
    mac: str
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Guest:
    """What the agent says of the guest, as far as it changes seldom."""

    hostname: str = ""
    os: GuestOs | None = None
    time_zone: GuestTimeZone | None = None
    interfaces: tuple[GuestInterface, ...] = ()


@dataclass(frozen=True, slots=True)
class BootPhase:
    """A part of the boot, with the guest's times."""

    name: str
    start_time: datetime | None
    duration_ms: int


@dataclass(frozen=True, slots=True)
class ProbeView:
    """How one probe stands since the guest began to boot; `evidence` is what was seen of it last."""

    holds: bool
    evidence: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the guest's console has told of in this boot: the guest's word, and no proof.

    Attributes:
        kind: KERNEL_PANIC, EMERGENCY_SHELL, KERNEL_OOPS or OUT_OF_MEMORY.
        line: The first line that told of it.
        count: How often, at least.
        time: When the first was seen.
    """

    kind: str
    line: str
    count: int
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One observation.

    Attributes:
        run_state: QEMU's RunState (QAPI run-state); empty without a process.
        incarnation: Raised with every start.
        exit: Of the last process; None while one runs.
        start_time: When the process was started.
        record: The instance record that the machine was prepared with.
        revision: Rises with every change within one life of the runner.
        network_fault: Why the guest has lost its network while QEMU runs; empty: it has not.
        cluster_id: The database whose controller prepared it last.
        fence: The highest that the runner has seen.
        boots: How often the guest has begun to boot, reboots of its own included.
        boot_time: When it last did.
        panicked: Whether the guest's kernel has panicked while QEMU runs on.
        io_error: What QEMU told of the disk that it stopped the guest for.
        probes: In the order of the contract that it was prepared with.
        cloud_init_detail: What cloud-init gave as its errors.
        troubles: What the console has told of in this boot, worst first.
    """

    id: str
    phase: MachinePhase
    run_state: str = ""
    incarnation: int = 0
    exit: MachineExit | None = None
    accelerator: str = ""
    nics: tuple[NicView, ...] = ()
    agent_connected: bool = False
    guest: Guest | None = None
    boot_phases: tuple[BootPhase, ...] = ()
    start_time: datetime | None = None
    record: str = ""
    revision: int = 0
    network_fault: str = ""
    fence: int = 0
    cluster_id: str = ""
    boots: int = 0
    boot_time: datetime | None = None
    panicked: bool = False
    io_error: str = ""
    probes: tuple[ProbeView, ...] = ()
    cloud_init: CloudInit = CloudInit.UNSEEN
    cloud_init_detail: str = ""
    troubles: tuple[Trouble, ...] = ()
    cloud_init_status: CloudInitStatus | None = None

    @property
    def running(self) -> bool:
        """Whether QEMU says that the guest's CPUs run, and its kernel has not given up."""
        return self.phase is MachinePhase.ACTIVE and self.run_state == "running" and not self.panicked

    @property
    def paused(self) -> bool:
        """Whether QEMU stands still as if told to."""
        return self.phase is MachinePhase.ACTIVE and self.run_state == "paused"

    @property
    def why_io_error(self) -> str:
        """Why QEMU holds the guest in the run state io-error, and the way on."""
        told = self.io_error or "The disk could not be read or written."
        return f"{told} QEMU holds the guest, nothing is lost: make room, then resume it."

    def older_than(self, known: "Machine") -> bool:
        """Whether this view predates `known`: an operation has had the machine since.

        The runner keeps the fence before it acts, and counts starts; neither ever falls by itself, but a
        machine that is gone counts no starts.
        """
        if self.phase is MachinePhase.ABSENT:
            return self.fence < known.fence
        return (self.fence, self.incarnation) < (known.fence, known.incarnation)


def absent(machine_id: str) -> Machine:
    """Return the observation of a machine that does not exist."""
    return Machine(id=machine_id, phase=MachinePhase.ABSENT)


@dataclass(frozen=True, slots=True)
class MachineImage:
    """The blob that a machine's disk begins with."""

    stored_digest: str
    format: str
    virtual_size_bytes: int


@dataclass(frozen=True, slots=True)
class MachineNic:
    """A NIC as it is to be.

    Attributes:
        address: Static; empty: the runner chooses.
        planned: What the runner has set aside for it at launch, shown until the machine is.
    """

    network: str
    mac: str
    ports: tuple[Port, ...] = ()
    address: str = ""
    planned: str = ""

    @property
    def foreseen(self) -> tuple[Address, ...]:
        """The address that it will have, where that is known."""
        if self.address:
            return (Address(self.address, "ipv4", "static"),)
        return (Address(self.planned, "ipv4", "reserved"),) if self.planned else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """What the runner is to make. `user_data` and `network_config` are secret; never log or store this.

    Attributes:
        keep_seed: What the seed is made of is not known here any more: the machine's own stays.
    """

    name: str
    arch: str
    cpus: int
    memory_mib: int
    disk_bytes: int
    image: MachineImage
    nics: tuple[MachineNic, ...]
    user_data: bytes = b""
    network_config: str = ""
    first_boot: FirstBoot = field(default_factory=FirstBoot)
    seed_id: str = ""
    keep_seed: bool = False
    cluster_id: str = ""
    record: str = ""
    probes: tuple[Probe, ...] = ()

    def __repr__(self) -> str:
        """Show nothing but the name: the rest may be secret."""
        return f"MachineSpec(name={self.name!r})"


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """What preparing and starting would do."""

    qemu_argv: tuple[str, ...]
    accelerator: str
    warnings: tuple[str, ...]
    networks: tuple[str, ...]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a program in the guest ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A program to run in the guest. `env` and `stdin` may be secret."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdin: bytes
    timeout_s: float
