"""What `machine.json` holds: all that the runner must know of a machine after it was killed.

Immutable values; each change is a new record that the store writes whole. Nothing secret is in it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from qemu_runner.domain.boot import ReachedPhase
from qemu_runner.domain.machine import Layer, MachineId, MachinePhase, MachineSpec
from qemu_runner.domain.trouble import Trouble


class ExitReason(StrEnum):
    """Why a process ended, in the words of the contract."""

    GUEST_SHUTDOWN = "GUEST_SHUTDOWN"
    STOPPED = "STOPPED"
    QEMU_EXITED = "QEMU_EXITED"
    QEMU_KILLED = "QEMU_KILLED"
    VM_HOST_EXITED = "VM_HOST_EXITED"
    HOST_SHUTDOWN = "HOST_SHUTDOWN"
    HOST_RESTARTED = "HOST_RESTARTED"
    KERNEL_PANIC = "KERNEL_PANIC"


@dataclass(frozen=True, slots=True)
class MachineExit:
    """How the last process ended.

    Attributes:
        reason: Why.
        message: One sentence.
        time: When (UTC).
        code: Exit code, if it exited.
        signal: Number of the signal, if one ended it.
        stderr_tail: The last of what QEMU said.
        console_tail: The last of what the guest said.
    """

    reason: ExitReason
    message: str
    time: datetime
    code: int | None = None
    signal: int | None = None
    stderr_tail: str = ""
    console_tail: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One start of a machine: what it was started as, and by which vm-host.

    Attributes:
        incarnation: Number in the handle at vm-host.
        vm_host: Socket of the vm-host.
        start_id: Which process of vm-host.
        boot_id: Which boot of the host.
        accelerator: "kvm" or "tcg".
        machine_type: Versioned.
        cpu_model: As in the argument list.
        cpus: Virtual CPUs, also the maximum.
        memory_mib: Memory; there are no further slots.
        qemu_version: Build that runs it.
        argv_hash: Hash of the normalised argument list.
        start_time: When it was spawned (UTC).
        console_offset: Where in the console log its output begins.
        first_boot: Number of the boot that it began with.
        traceparent: Of the call that started it; the boot's spans belong to it.
        confirmed: Whether QEMU was seen to run the guest.
        panicked: Whether the guest was seen to panic.
        shutdown_cause: QEMU's word for why it is shutting down (QAPI `ShutdownCause`); empty before.
        ending: Whether the runner was asked to end it.
        boot_offset: Where in the console log the output of the present boot begins.
        kernel_start: The guest's uptime 0 on the host's clock.
        phases: Phases of the present boot so far.
        held: Numbers of the spec's probes that have held in the present boot.
        extra_arguments: What the operator's settings added to its argument list.
        troubles: What the console has told of in the present boot.
    """

    incarnation: int
    vm_host: str
    start_id: str
    boot_id: str
    accelerator: str
    machine_type: str
    cpu_model: str
    cpus: int
    memory_mib: int
    qemu_version: str
    argv_hash: str
    start_time: datetime
    console_offset: int = 0
    first_boot: int = 0
    traceparent: str = ""
    confirmed: bool = False
    panicked: bool = False
    shutdown_cause: str = ""
    ending: bool = False
    boot_offset: int = 0
    kernel_start: datetime | None = None
    phases: tuple[ReachedPhase, ...] = ()
    held: tuple[int, ...] = ()
    extra_arguments: tuple[str, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    def begun_anew(self, console_offset: int) -> "Run":
        """Return the run after its guest has begun to boot again, its output beginning there."""
        return replace(
            self,
            panicked=False,
            boot_offset=console_offset,
            kernel_start=None,
            phases=(),
            held=(),
            troubles=(),
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """What a NIC has on this host for as long as its machine exists.

    Attributes:
        mac: The NIC's.
        address: Reserved for it on the runner's own bridge; empty on other networks.
        tap: Name of its tap while it runs; empty on the user network.
    """

    mac: str
    address: str = ""
    tap: str = ""


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """The contents of machine.json.

    Attributes:
        machine_id: Name of the directory.
        fence: Highest fence seen.
        spec: What it was asked to be, last.
        prepared: Whether its files match `spec`.
        incarnation: Number of starts.
        uid: Of its processes and files; None: the runner's own.
        user_index: Its number in the plan of user addresses; None without such a NIC.
        holdings: What its NICs have, one each, in their order.
        layers: Its disk, topmost first.
        seed_hash: Of what the seed was made of.
        reset_request: Request id of the last reset, so that its repetition resets nothing.
        boots: How often the guest has begun to boot, resets and reboots included.
        boot_time: When it last did (UTC).
        run: Its process, while it has one that is not known to have ended.
        last_run: The process before, once it has ended.
        exit: How that ended; None while there is a process.
    """

    machine_id: MachineId
    fence: int
    spec: MachineSpec
    prepared: bool = False
    incarnation: int = 0
    uid: int | None = None
    user_index: int | None = None
    holdings: tuple[Holding, ...] = ()
    layers: tuple[Layer, ...] = ()
    seed_hash: str = ""
    reset_request: str = ""
    boots: int = 0
    boot_time: datetime | None = None
    run: Run | None = None
    last_run: Run | None = None
    exit: MachineExit | None = None

    @property
    def phase(self) -> MachinePhase:
        """The phase that these facts mean."""
        if self.run is not None:
            return MachinePhase.ACTIVE
        if not self.prepared:
            return MachinePhase.PREPARING
        return MachinePhase.PREPARED if self.exit is None else MachinePhase.EXITED

    @property
    def machine_type(self) -> str:
        """The versioned machine type that it was started as last; empty before its first start."""
        run = self.run or self.last_run
        return "" if run is None else run.machine_type

    def address_of(self, mac: str) -> str:
        """Return the address that is reserved for a NIC; empty: none is."""
        return next((holding.address for holding in self.holdings if holding.mac == mac), "")

    def ended(self, how: MachineExit) -> "MachineRecord":
        """Return the record after its process ended."""
        return replace(self, run=None, last_run=self.run, exit=how)

    def never_ran(self) -> "MachineRecord":
        """Return the record after a start that came to nothing: no guest has begun to boot."""
        return replace(self, run=None, boots=max(0, self.boots - 1))

    def booted(self, moment: datetime, console_offset: int) -> "MachineRecord":
        """Return the record after the guest has begun to boot once more; what its boot had shown is void."""
        run = None if self.run is None else self.run.begun_anew(console_offset)
        return replace(self, run=run, boots=self.boots + 1, boot_time=moment)

    def with_run(self, run: Run) -> "MachineRecord":
        """Return the record with this state of its process."""
        return replace(self, run=run)
