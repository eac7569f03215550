"""What can go wrong in the runner, as data.

Tree::

    RunnerError
    ├── MachineNotFoundError         no such machine here
    ├── MachineStateError            what the machine is doing does not allow this
    ├── StaleFenceError              a newer caller has taken over
    ├── SpecInvalidError             faults of a spec, each with its pointer
    ├── ArchUnsupportedError         no program here emulates this architecture
    ├── NetworkUnavailableError      a network cannot be offered here
    ├── PortUnavailableError         a host port cannot be published
    ├── AddressInUseError            a static address is another machine's
    ├── HostCapacityError            the host has not that much
    ├── ConsoleFullError             so many look at a console already
    ├── DiskFullError                no room for a file
    ├── DiskUnsafeError              a machine's disk is not what was made for it
    ├── ImageStoreUnavailableError   the store cannot be reached, or broke off
    ├── ImageNotFoundError           the store has no such blob
    ├── ImageCorruptError            the bytes that came are not those of the digest
    ├── VmHostUnavailableError       vm-host cannot be reached
    ├── QemuUnavailableError         QEMU is missing, or cannot be used as asked
    ├── QemuStartError               QEMU ended, or was silent, before the machine ran
    ├── MonitorError                 QEMU's monitor refused a command, broke off or was silent
    ├── MachineStuckError            the machine did not end though everything was tried
    ├── ConsoleFollowersError        as many follow consoles as may
    └── GuestError
        ├── GuestAgentUnavailableError   no agent answers in this guest
        ├── GuestAgentRefusedError       the agent answered with an error
        ├── GuestProgramNotFoundError    the guest has no such program
        ├── GuestExecTimeoutError        the program did not end in time
        ├── GuestFileNotFoundError       the guest has no such file, or no directory for it
        ├── GuestFileRefusedError        the guest does not let the file be read or written
        ├── GuestFileDigestError         the bytes are not those of the digest
        └── GuestFileTruncatedError      a push broke off

They know nothing of gRPC; ``error_table`` has the one mapping. Foreign errors become one of these at
the adapter that met them.
"""

from dataclasses import dataclass


class RunnerError(Exception):
    """Root of everything this service raises on purpose."""


class MachineNotFoundError(RunnerError):
    """There is no machine of this id on this host."""

    def __init__(self, machine_id: str) -> None:
        self.machine_id = machine_id
        super().__init__(f"There is no machine {machine_id} on this host.")


class MachineStateError(RunnerError):
    """What the machine is doing, or has not yet, does not allow this."""

    def __init__(self, machine_id: str, state: str, wanted: str) -> None:
        self.machine_id = machine_id
        self.state = state
        self.wanted = wanted
        super().__init__(f"Machine {machine_id} is {state}: {wanted}.")


class StaleFenceError(RunnerError):
    """A call of a caller that another one has replaced."""

    def __init__(self, machine_id: str, fence: int, highest: int) -> None:
        self.machine_id = machine_id
        self.fence = fence
        self.highest = highest
        super().__init__(f"Fence {fence} for machine {machine_id} is below {highest}, which was seen before.")


@dataclass(frozen=True, slots=True)
class SpecFault:
    """One fault of a spec: a JSON pointer into the instance's body, and what is wrong there."""

    pointer: str
    detail: str


class SpecInvalidError(RunnerError):
    """A spec that this runner cannot carry out whatever the host's state."""

    def __init__(self, faults: tuple[SpecFault, ...]) -> None:
        self.faults = faults
        super().__init__(" ".join(f"{fault.pointer}: {fault.detail}" for fault in faults))


class ArchUnsupportedError(RunnerError):
    """No machine of this architecture can run here."""

    def __init__(self, arch: str, detail: str) -> None:
        self.arch = arch
        super().__init__(f"Machines of {arch} cannot run here: {detail}")


class NetworkUnavailableError(RunnerError):
    """A network that exists by name cannot be offered on this host."""

    def __init__(self, network: str, detail: str) -> None:
        self.network = network
        super().__init__(f"The network {network!r} cannot be had here: {detail}")


class PortUnavailableError(RunnerError):
    """A port of the host cannot be published."""

    def __init__(self, pointer: str, port: int, detail: str) -> None:
        self.pointer = pointer
        self.port = port
        super().__init__(detail)


class AddressInUseError(RunnerError):
    """A static address belongs to another machine, running or not."""

    def __init__(self, pointer: str, address: str, holder: str) -> None:
        self.pointer = pointer
        self.address = address
        self.holder = holder
        super().__init__(f"{address} belongs to the instance {holder}.")


class HostCapacityError(RunnerError):
    """The host has not what the machine needs."""

    def __init__(self, resource: str, wanted: int, available: int, unit: str) -> None:
        self.resource = resource
        self.wanted = wanted
        self.available = available
        super().__init__(
            f"The host has {available} {unit} of {resource} left for machines; {wanted} {unit} are needed."
        )


class ConsoleFullError(RunnerError):
    """No more viewers of consoles are let in."""

    def __init__(self, limit: int, where: str) -> None:
        self.limit = limit
        super().__init__(f"{limit} viewers are attached to {where} already; no more are let in.")


class DiskFullError(RunnerError):
    """A file could not be written for lack of room."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"The disk that holds {path} is full.")


class DiskUnsafeError(RunnerError):
    """A machine's own disk would lead the tools that open it somewhere else."""

    def __init__(self, path: str, detail: str) -> None:
        self.path = path
        super().__init__(f"{path} is not opened: {detail}.")


class ImageStoreUnavailableError(RunnerError):
    """The image store did not answer, or broke off."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"The image store cannot be reached: {detail}")


class ImageNotFoundError(RunnerError):
    """The image store has no blob of this digest."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        super().__init__(f"The image store has no blob {digest}.")


class ImageCorruptError(RunnerError):
    """The bytes that came do not have the digest they were asked by."""

    def __init__(self, digest: str, found: str) -> None:
        self.digest = digest
        self.found = found
        super().__init__(f"The bytes of {digest} have the digest {found}.")


class VmHostUnavailableError(RunnerError):
    """The vm-host does not answer; whether its machines run is not known."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"vm-host cannot be reached: {detail}")


class QemuUnavailableError(RunnerError):
    """QEMU is not installed where vm-host runs, or cannot be used as asked."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"QEMU cannot be run: {detail}")


class QemuStartError(RunnerError):
    """QEMU was started and did not come to run the machine; nothing of it is left running."""

    def __init__(self, machine_id: str, detail: str, stderr_tail: str) -> None:
        self.machine_id = machine_id
        self.stderr_tail = stderr_tail
        said = stderr_tail.strip()
        super().__init__(f"QEMU did not start: {detail}." + (f" It said: {said}" if said else ""))


class MonitorError(RunnerError):
    """QEMU's monitor refused a command, ended the connection or did not answer in time."""

    def __init__(self, command: str, detail: str) -> None:
        self.command = command
        self.detail = detail
        super().__init__(f"QEMU's monitor failed at {command}: {detail}")


class MachineStuckError(RunnerError):
    """The process did not end though it was asked, told and killed."""

    def __init__(self, machine_id: str) -> None:
        self.machine_id = machine_id
        super().__init__(f"The process of machine {machine_id} has not ended after SIGKILL.")


class ConsoleFollowersError(RunnerError):
    """As many follow the console of a machine, or of all machines of this host, as may."""

    def __init__(self, machine_id: str, limit: int) -> None:
        self.limit = limit
        whose = f"the console of machine {machine_id}" if machine_id else "consoles of this host"
        super().__init__(f"{limit} follow {whose} already.")


class GuestError(RunnerError):
    """Something inside the guest; never proof of anything about the machine."""


class GuestAgentUnavailableError(GuestError):
    """No guest agent answers."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"The guest agent does not answer: {detail}")


class GuestAgentRefusedError(GuestError):
    """The agent answered a command with an error."""

    def __init__(self, command: str, detail: str) -> None:
        self.command = command
        self.detail = detail
        super().__init__(f"The guest agent refused {command}: {detail}")


class GuestProgramNotFoundError(GuestError):
    """The guest has no such program, or may not execute it."""

    def __init__(self, program: str) -> None:
        self.program = program
        super().__init__(f"The guest has no program {program!r} that it can execute.")


class GuestExecTimeoutError(GuestError):
    """A program in the guest did not end in time."""

    def __init__(self, program: str, timeout_s: float, *, ended: bool) -> None:
        self.program = program
        self.timeout_s = timeout_s
        self.ended = ended
        fate = "it was ended" if ended else "it may still run"
        super().__init__(f"{program!r} did not end within {timeout_s:g} s; {fate}.")


class GuestFileNotFoundError(GuestError):
    """The guest has no such file, or no directory to put it in."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"The guest has no file {path!r}, or not the directory for it.")


class GuestFileRefusedError(GuestError):
    """The guest does not let a file be read or written; its words are told."""

    def __init__(self, path: str, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(f"The guest refuses {path!r}: {detail}")


class GuestFileDigestError(GuestError):
    """The bytes of a file are not those of the digest that was given or counted."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        self.path = path
        self.expected = expected
        self.found = found
        super().__init__(f"{path!r} should have had the digest {expected}, and came with {found}.")


class GuestFileTruncatedError(GuestError):
    """The bytes of a push broke off; nothing of them is left in the guest."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"What was to become {path!r} broke off before its end.")
