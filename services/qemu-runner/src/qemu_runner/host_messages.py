"""What the host tells of itself, as the contract's messages."""

from collections.abc import Iterable
from typing import Final

from qcontroller.controller.v1 import host_pb2

from qemu_runner.guest_messages import time_message
from qemu_runner.service.host import DependencyState, HostLeak, NodeState
from qemu_runner.service.vm_hosts import VmHostState
from qemu_runner.user_network import Check, CheckStatus

# What the contract's numbers hold, 4 PiB: network file systems tell of exbibytes.
_MOST_MIB: Final = 2**32 - 1
_VM_HOST_STATES: Final = {
    VmHostState.READY: host_pb2.NODE_STATE_READY,
    VmHostState.DRAINING: host_pb2.NODE_STATE_DRAINING,
    VmHostState.UNREACHABLE: host_pb2.NODE_STATE_UNREACHABLE,
}
_CHECKS: Final = {
    CheckStatus.PASS: host_pb2.CHECK_STATUS_PASS,
    CheckStatus.WARN: host_pb2.CHECK_STATUS_WARN,
    CheckStatus.FAIL: host_pb2.CHECK_STATUS_FAIL,
}


def node_message(node: NodeState) -> host_pb2.Node:
    """Return what is told of the host."""
    return host_pb2.Node(
        name=node.name,
        # It answers; what keeps it from taking machines stands in `message` and in the dependencies.
        state=host_pb2.NODE_STATE_READY,
        arch="x86_64",
        qemu_version=node.qemu_version,
        accelerators=[
            host_pb2.Accelerator(name=a.name, usable=a.usable, reason="" if a.usable else a.reason)
            for a in node.accelerators
        ],
        accelerator=node.accelerator,
        speed_factor=node.speed_factor,
        cpus=host_pb2.CpuCapacity(total=node.size.cpus, allocated=node.allocated.cpus),
        memory=host_pb2.MemoryCapacity(total=node.size.memory_mib, allocated=node.allocated.memory_mib),
        disk=host_pb2.DiskCapacity(
            total=min(node.disk_total_mib, _MOST_MIB), free=min(node.disk_free_mib, _MOST_MIB)
        ),
        message=node.message,
        vm_hosts=[
            host_pb2.VmHost(
                name=view.name,
                generation=view.generation,
                qemu_version=view.qemu_version,
                state=_VM_HOST_STATES[view.state],
                machines=view.machines,
                since=time_message(view.since),
                message=view.message,
            )
            for view in node.vm_hosts
        ],
    )


def dependency_messages(states: Iterable[DependencyState]) -> list[host_pb2.Dependency]:
    """Return what is told of the vm-hosts."""
    return [
        host_pb2.Dependency(name=s.name, up=s.up, since=time_message(s.since), detail=s.detail)
        for s in states
    ]


def leak_messages(leaks: Iterable[HostLeak]) -> list[host_pb2.Leak]:
    """Return what is told of leaks."""
    return [
        host_pb2.Leak(
            kind=leak.kind,
            name=leak.name,
            owner=leak.owner,
            since=None if leak.since is None else time_message(leak.since),
        )
        for leak in leaks
    ]


def check_messages(checks: Iterable[Check]) -> list[host_pb2.Check]:
    """Return what is told of the doctor's checks."""
    return [host_pb2.Check(name=c.name, status=_CHECKS[c.status], detail=c.detail, fix=c.fix) for c in checks]
