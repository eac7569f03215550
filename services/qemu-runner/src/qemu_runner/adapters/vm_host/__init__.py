"""Adapter to vm-host, the parent of QEMU and passt (docs/vm-host-protocol.md).

``async with VmHostClient(path) as host`` is the way in; standard library only.
"""

from qemu_runner.adapters.vm_host.client import VmHostClient
from qemu_runner.adapters.vm_host.errors import (
    RefusalCode,
    VmHostError,
    VmHostIncompatible,
    VmHostMessageTooLarge,
    VmHostRefused,
    VmHostUnavailable,
)
from qemu_runner.adapters.vm_host.messages import (
    VMHOST_QMP_FD,
    AcceleratorOffer,
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
from qemu_runner.adapters.vm_host.stop_record import StopRecord, read_stop_record

__all__ = [
    "VMHOST_QMP_FD",
    "AcceleratorOffer",
    "ChildExit",
    "ChildHandle",
    "ChildRecord",
    "ChildRole",
    "ChildSignal",
    "ExitReason",
    "QemuOffer",
    "RefusalCode",
    "SpawnRequest",
    "Spawned",
    "StopRecord",
    "Stopping",
    "VmHostClient",
    "VmHostError",
    "VmHostHello",
    "VmHostIncompatible",
    "VmHostMessageTooLarge",
    "VmHostRefused",
    "VmHostUnavailable",
    "WatchEvent",
    "read_stop_record",
]
