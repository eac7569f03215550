"""Values of the domain as messages of the contract."""

from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from qcontroller.controller.v1 import host_pb2, instance_pb2

from controller.domain.cloud_init import CloudInitStatus
from controller.domain.console import ConsoleChunk
from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import Address, BootPhase, Guest, NicView
from controller.domain.node import Check, Dependency, Leak, Node
from controller.domain.orphan import Orphan
from controller.domain.readiness import Readiness
from controller.probe_messages import probe_message
from controller.records.readiness_documents import duration_text

# What the contract's numbers hold, 4 PiB: network file systems tell of exbibytes, and ratios multiply.
_MOST_MIB: Final = 2**32 - 1


def instance_message(instance: Instance) -> instance_pb2.Instance:
    """Return an instance; it holds no secrets."""
    return instance_pb2.Instance(
        name=instance.name,
        id=instance.id,
        image=instance.image.name,
        image_digest=instance.image.digest,
        vm=instance_pb2.VmResources(
            cpus=instance.resources.cpus,
            memory=instance.resources.memory_mib,
            disk=instance.resources.disk_mib,
        ),
        labels=dict(instance.labels),
        desired_power=instance_pb2.DesiredPower.Value(f"DESIRED_POWER_{instance.desired_power}"),
        generation=instance.generation,
        create_time=time_message(instance.create_time),
        status=_status(instance),
        arch=instance.arch,
        readiness=_readiness(instance.readiness),
        etag=instance.etag,
        restart_policy=instance.policies.restart.value,
        autostart=instance.policies.autostart,
        expire_time=_optional_time(instance.policies.expire_time),
        on_expire=instance.policies.on_expire.value,
        protected=instance.policies.protected,
        ssh_keys=instance.first_boot.ssh_keys,
        hostname=instance.first_boot.hostname,
        packages=instance.first_boot.packages,
        lease="" if instance.lease is None else duration_text(instance.lease.duration_s),
    )


def node_message(node: Node) -> host_pb2.Node:
    """Return a node."""
    return host_pb2.Node(
        name=node.name,
        state=host_pb2.NodeState.Value(f"NODE_STATE_{node.state}"),
        arch=node.arch,
        qemu_version=node.qemu_version,
        accelerators=[
            host_pb2.Accelerator(name=item.name, usable=item.usable, reason=item.reason)
            for item in node.accelerators
        ],
        accelerator=node.accelerator,
        speed_factor=node.speed_factor,
        cpus=host_pb2.CpuCapacity(
            total=node.cpus_total, allocated=node.cpus_allocated, limit=node.cpus_limit
        ),
        memory=host_pb2.MemoryCapacity(
            total=node.memory_total_mib, allocated=node.memory_allocated_mib, limit=node.memory_limit_mib
        ),
        disk=host_pb2.DiskCapacity(
            total=min(node.disk_total_mib, _MOST_MIB),
            free=min(node.disk_free_mib, _MOST_MIB),
            allocated=min(node.disk_allocated_mib, _MOST_MIB),
            limit=min(node.disk_limit_mib, _MOST_MIB),
        ),
        message=node.message,
        vm_hosts=[
            host_pb2.VmHost(
                name=item.name,
                generation=item.generation,
                qemu_version=item.qemu_version,
                state=host_pb2.NodeState.Value(f"NODE_STATE_{item.state}"),
                machines=item.machines,
                since=None if item.since is None else time_message(item.since),
                message=item.message,
            )
            for item in node.vm_hosts
        ],
    )


def leak_message(leak: Leak) -> host_pb2.Leak:
    """Return a leak."""
    since = None if leak.since is None else time_message(leak.since)
    return host_pb2.Leak(kind=leak.kind, name=leak.name, owner=leak.owner, since=since)


def orphan_message(orphan: Orphan) -> host_pb2.Orphan:
    """Return a quarantined machine."""
    unclaimed = orphan.unclaimed
    return host_pb2.Orphan(
        id=orphan.id,
        name=orphan.name,
        running=unclaimed.running,
        since=None if unclaimed.since is None else time_message(unclaimed.since),
        size_bytes=unclaimed.disk_bytes,
        reason=orphan.reason.value,
        message=orphan.message,
        importable=orphan.importable,
    )


def check_message(check: Check) -> host_pb2.Check:
    """Return a check of the doctor."""
    status = host_pb2.CheckStatus.Value(f"CHECK_STATUS_{check.status}")
    return host_pb2.Check(name=check.name, status=status, detail=check.detail, fix=check.fix)


def dependency_message(dependency: Dependency) -> host_pb2.Dependency:
    """Return a dependency."""
    since = None if dependency.since is None else time_message(dependency.since)
    return host_pb2.Dependency(name=dependency.name, up=dependency.up, since=since, detail=dependency.detail)


def time_message(moment: datetime) -> Timestamp:
    """Return a time."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _status(instance: Instance) -> instance_pb2.InstanceStatus:
    machine = instance.machine
    lease = instance.lease
    failure = instance.failure if instance.state is InstanceState.FAILED else None
    status = instance_pb2.InstanceStatus(
        state=instance_pb2.InstanceState.Value(f"INSTANCE_STATE_{instance.state}"),
        reason=instance.reason,
        message=instance.message,
        observed_generation=instance.observed_generation,
        node=instance.node,
        accelerator="" if machine is None else machine.accelerator,
        nics=[_nic(nic) for nic in instance.nic_views],
        conditions=[
            instance_pb2.Condition(
                type=condition.type,
                status=instance_pb2.ConditionStatus.Value(f"CONDITION_STATUS_{condition.status}"),
                reason=condition.reason,
                message=condition.message,
                last_transition_time=time_message(condition.last_transition_time),
            )
            for condition in instance.conditions
        ],
        guest=None if machine is None or machine.guest is None else _guest(machine.guest),
        operation=instance.operation,
        boot_phases=[] if machine is None else [_phase(phase) for phase in machine.boot_phases],
        restart_count=instance.restarts.count,
        next_restart_time=_optional_time(instance.restarts.next_time),
        lease_expire_time=None if lease is None else time_message(lease.expire_time),
        lease_lost_time=None if lease is None else _optional_time(lease.lost_time),
        boots=0 if machine is None else machine.boots,
    )
    if machine is not None and machine.boot_time is not None:
        status.boot_time.CopyFrom(time_message(machine.boot_time))
    if machine is not None and machine.cloud_init_status is not None:
        status.cloud_init.CopyFrom(_cloud_init(machine.cloud_init_status))
    if failure is not None:
        status.stderr_tail = failure.stderr_tail
        status.console_tail = failure.console_tail
        status.exit_signal = failure.signal
        status.failure_time.CopyFrom(time_message(failure.time))
        if failure.code is not None:
            status.exit_code = failure.code
    return status


def _optional_time(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else time_message(moment)


def _readiness(readiness: Readiness) -> instance_pb2.Readiness:
    return instance_pb2.Readiness(
        all=[probe_message(probe) for probe in readiness.probes], deadline=duration_text(readiness.deadline_s)
    )


def _nic(nic: NicView) -> instance_pb2.NicStatus:
    return instance_pb2.NicStatus(
        network=nic.network,
        mac=nic.mac,
        addresses=[_address(item) for item in nic.addresses],
        ports=[
            instance_pb2.PortMapping(
                host=port.host, guest=port.guest, protocol=port.protocol, address=port.address
            )
            for port in nic.ports
        ],
    )


def _guest(guest: Guest) -> instance_pb2.GuestInfo:
    message = instance_pb2.GuestInfo(
        hostname=guest.hostname,
        interfaces=[
            instance_pb2.GuestInterface(
                name=one.name, mac=one.mac, addresses=[_address(item) for item in one.addresses]
            )
            for one in guest.interfaces
        ],
    )
    if guest.os is not None:
        message.os.id = guest.os.id
        message.os.name = guest.os.name
        message.os.pretty_name = guest.os.pretty_name
        message.os.version = guest.os.version
        message.os.kernel_release = guest.os.kernel_release
        message.os.machine = guest.os.machine
    if guest.time_zone is not None:
        message.time_zone.name = guest.time_zone.name
        message.time_zone.offset_seconds = guest.time_zone.offset_s
    return message


def _cloud_init(found: CloudInitStatus) -> instance_pb2.CloudInitStatus:
    return instance_pb2.CloudInitStatus(
        state=found.state,
        datasource=found.datasource,
        stages=[
            instance_pb2.CloudInitStage(
                name=stage.name,
                start_time=_optional_time(stage.start_time),
                finish_time=_optional_time(stage.finish_time),
                errors=stage.errors,
                warnings=stage.warnings,
            )
            for stage in found.stages
        ],
        errors=found.errors,
        failed_modules=found.failed_modules,
        warnings=found.warnings,
        schema_errors=found.schema_errors,
    )


def _address(address: Address) -> instance_pb2.NicAddress:
    return instance_pb2.NicAddress(address=address.address, family=address.family, source=address.source)


def _phase(phase: BootPhase) -> instance_pb2.BootPhase:
    start = None if phase.start_time is None else time_message(phase.start_time)
    return instance_pb2.BootPhase(name=phase.name, start_time=start, duration_ms=phase.duration_ms)


def console_message(chunk: ConsoleChunk) -> instance_pb2.ReadConsoleResponse:
    """Return a piece of a console's log."""
    return instance_pb2.ReadConsoleResponse(
        chunk=chunk.chunk,
        offset=chunk.offset,
        total_bytes=chunk.total_bytes,
        first_kept=chunk.first_kept,
        times=[
            instance_pb2.ConsoleTime(end=one.end, time=time_message(one.time), approximate=one.approximate)
            for one in chunk.times
        ],
    )
