"""What the services ask of their surroundings.

Each port has its real adapter and a fake in the unit tests; what has only one implementation is used
directly.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# The values of vm-host's protocol: what crosses this port, without the client that carries it.
from qemu_runner.adapters.vm_host.errors import RefusalCode, VmHostError, VmHostRefused
from qemu_runner.adapters.vm_host.messages import (
    ChildExit,
    ChildHandle,
    ChildRecord,
    ChildRole,
    ChildSignal,
    ExitReason,
    QemuOffer,
    Spawned,
    SpawnRequest,
    Stopping,
    VmHostHello,
    WatchEvent,
)
from qemu_runner.adapters.vm_host.stop_record import StopRecord
from qemu_runner.domain.machine import DiskFormat

__all__ = [
    "BlobInfo",
    "BlobSource",
    "ChildExit",
    "ChildHandle",
    "ChildRecord",
    "ChildRole",
    "ChildSignal",
    "ExitReason",
    "LastWords",
    "QemuOffer",
    "RefusalCode",
    "SpawnRequest",
    "Spawned",
    "StopRecord",
    "Stopping",
    "VmHostConnection",
    "VmHostDoor",
    "VmHostError",
    "VmHostHello",
    "VmHostRefused",
    "WatchEvent",
]


class VmHostConnection(Protocol):
    """A connection to a vm-host: `VmHostClient`, whose docstrings hold."""

    @property
    def hello(self) -> VmHostHello:
        """How the vm-host introduced itself."""

    async def refresh_hello(self) -> VmHostHello:
        """Ask for its introduction again."""

    async def spawn(self, request: SpawnRequest) -> Spawned:
        """Start a child, or return the one of this handle."""

    async def signal(self, handle: ChildHandle, which: ChildSignal) -> None:
        """Send a signal to a living child."""

    async def list_children(self) -> tuple[ChildRecord, ...]:
        """Return all children."""

    async def ack(self, handle: ChildHandle) -> None:
        """Let vm-host forget an exit."""

    def watch(self) -> AsyncIterator[WatchEvent]:
        """Yield exits and the word that vm-host stops."""


VmHostDoor = Callable[[Path], AbstractAsyncContextManager[VmHostConnection]]
"""Opens a connection to the vm-host at a socket."""

LastWords = Callable[[Path], StopRecord | None]
"""Reads what the vm-host at a socket wrote when it stopped in good order; None: nothing. Blocks."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What the image store says of a blob before its bytes."""

    size_bytes: int
    format: DiskFormat


class BlobSource(Protocol):
    """Where images come from."""

    def read(self, digest: str) -> AsyncIterator[BlobInfo | bytes]:
        """Yield what the blob is, then its bytes in order.

        Raises:
            ImageNotFoundError: There is no such blob.
            ImageStoreUnavailableError: The store is away, breaks off or falls silent.
        """
