"""The values that the runner and vm-host exchange, as the runner sees them.

Frozen values without behaviour towards the host; the JSON they travel in is known to ``codec``
alone (docs/vm-host-protocol.md). A process is named by its handle, never by a pid: pid namespaces
differ between the two containers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

VMHOST_QMP_FD = "vmhost-qmp"
"""Name of the descriptor that vm-host makes itself: its own end of a QMP monitor of a QEMU."""


class ChildRole(StrEnum):
    """What a child process is to its machine."""

    QEMU = "qemu"
    PASST = "passt"


class ChildSignal(StrEnum):
    """The signals that vm-host passes on."""

    TERM = "TERM"
    KILL = "KILL"
    QUIT = "QUIT"


class ExitReason(StrEnum):
    """Who ended a child, as far as vm-host knows."""

    EXITED = "EXITED"  # by itself, or by a signal that somebody sent
    HOST_SHUTDOWN = "HOST_SHUTDOWN"  # while vm-host itself was stopping


@dataclass(frozen=True, slots=True, order=True)
class ChildHandle:
    """Name of one child process: one role of one machine in one incarnation.

    Attributes:
        machine_id: UUID of the machine, lower-case with hyphens.
        role: What the process is to it.
        incarnation: Number ≥ 1 that the runner counts up (and stores) before each new start.
    """

    machine_id: str
    role: ChildRole
    incarnation: int


@dataclass(frozen=True, slots=True)
class ChildExit:
    """The end of a child; vm-host keeps and repeats it until it is acknowledged.

    Attributes:
        handle: Which child.
        code: Its exit code, or None if a signal ended it.
        signal: Number of the signal that ended it, or None.
        reason: Whether it ended in vm-host's own stop.
        started_at: When it was spawned (UTC).
        ended_at: When vm-host reaped it (UTC).
    """

    handle: ChildHandle
    code: int | None
    signal: int | None
    reason: ExitReason
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Stopping:
    """vm-host announced that it is stopping: it ends every child and then itself."""

    start_id: str


WatchEvent = ChildExit | Stopping


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """A child as vm-host lists it: alive, or ended and not yet acknowledged.

    Attributes:
        handle: Which child.
        pid: Process id in vm-host's pid namespace; a hint for people, never an identity.
        started_at: When it was spawned (UTC).
        exit: How it ended; None while it lives.
    """

    handle: ChildHandle
    pid: int
    started_at: datetime
    exit: ChildExit | None = None


@dataclass(frozen=True, slots=True)
class Spawned:
    """Answer to a spawn.

    Attributes:
        child: The child; it may have ended already.
        created: False if this handle was spawned before: nothing was started now.
    """

    child: ChildRecord
    created: bool


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """What is to be started.

    Attributes:
        handle: The name it gets. Spawning the same handle again returns the existing child.
        argv: Program (an allowed name, e.g. ``qemu-system-x86_64``; no path) and arguments. Each
            ``{fd:NAME}`` in an argument becomes the number that descriptor NAME has in the child;
            ``{fd:vmhost-qmp}`` is vm-host's own monitor and is not passed by the caller.
        fds: Descriptors by name (``[a-z][a-z0-9-]*``); each must occur in ``argv``.
        stderr_fd: Receives the child's stdout and stderr (open it with O_APPEND); None discards them.
        uid: Runs as this uid; None (and only None) where vm-host is not root.
        gid: Primary group, given exactly if ``uid`` is.
        groups: Supplementary groups; for a QEMU vm-host adds that of a usable /dev/kvm by itself.
        tmp_dir: TMPDIR of the child, or None; its environment is otherwise vm-host's fixed one.
        cwd: Absolute working directory at or below vm-host's machinesDir; None is ``/``.
    """

    handle: ChildHandle
    argv: tuple[str, ...]
    fds: Mapping[str, int] = field(default_factory=dict)
    stderr_fd: int | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    tmp_dir: str | None = None
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class AcceleratorOffer:
    """One accelerator of one QEMU, with the reason why it is (not) usable."""

    name: str
    usable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class QemuOffer:
    """One QEMU binary of a vm-host.

    Attributes:
        arch: Guest architecture (``x86_64``).
        program: The name to put first in ``SpawnRequest.argv``.
        version: e.g. ``7.2.22``; empty if the binary cannot be used.
        machine_types: Versioned names as ``-machine help`` prints them, aliases excluded.
        machine_aliases: Alias to versioned name (``q35`` to ``pc-q35-7.2``).
        accelerators: Offers by name.
        error: Why the binary cannot be used; empty if it can.
        missing_firmware: Files that it needs and does not find; an older vm-host names none.
    """

    arch: str
    program: str
    version: str
    machine_types: tuple[str, ...]
    machine_aliases: Mapping[str, str]
    accelerators: tuple[AcceleratorOffer, ...]
    error: str = ""
    missing_firmware: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VmHostHello:
    """How a vm-host introduces itself.

    Attributes:
        generation: Label of its build or image, chosen by whoever deployed it.
        start_id: Random per vm-host process. A different one at the same socket means that the
            earlier vm-host, and with it every child it had, is gone.
        boot_id: The kernel's boot id of its host.
        pid: Its process id in its own namespace; diagnostics only.
        root: Whether it can give each child a uid of its own.
        bounding_set_empty: Whether its launcher was seen to empty a child's capability bounding set.
        stopping: Whether it has begun to stop; it then spawns nothing.
        qemu: Its QEMU binaries.
    """

    generation: str
    start_id: str
    boot_id: str
    pid: int
    root: bool
    bounding_set_empty: bool
    stopping: bool
    qemu: tuple[QemuOffer, ...]
