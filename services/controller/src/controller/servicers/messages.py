"""Instances, operations and nodes as the messages that clients get. Secrets are not within reach here."""

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from qcontroller.controller.v1 import host_pb2, instance_pb2, operation_pb2
from servicekit.telemetry import trace_id_of

from controller.domain.condition import Condition
from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import BootPhase, Guest, NicView
from controller.domain.node import Check, Dependency, Leak, Node
from controller.domain.readiness import Probe, Readiness
from controller.instances.submitting import Mutated
from controller.operations import Operation, Stage
from controller.records.documents import duration_text


def mutation_message(mutated: Mutated) -> instance_pb2.Mutation:
    """Return the answer of a mutation."""
    message = instance_pb2.Mutation(replayed=mutated.replayed)
    if mutated.operation is not None:
        message.operation.CopyFrom(operation_message(mutated.operation))
    if mutated.instance is not None:
        message.instance.CopyFrom(instance_message(mutated.instance))
    return message


def instance_message(instance: Instance) -> instance_pb2.Instance:
    """Return an instance."""
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
        desired_power=instance_pb2.DesiredPower.Value(f"DESIRED_POWER_{instance.desired_power.value}"),
        generation=instance.generation,
        create_time=time_message(instance.create_time),
        status=_status(instance),
        arch=instance.arch,
        readiness=_readiness(instance.readiness),
        etag=instance.etag,
    )


def operation_message(operation: Operation) -> operation_pb2.Operation:
    """Return an operation."""
    message = operation_pb2.Operation(
        id=operation.id,
        kind=operation.kind,
        instance=operation.subject_name,
        initiator=operation.initiator.value,
        state=operation_pb2.OperationState.Value(f"OPERATION_STATE_{operation.public_state.value}"),
        stages=[_stage(stage) for stage in operation.stages],
        result=f"/v1/instances/{operation.subject_name}",
        create_time=time_message(operation.created_at),
        start_time=time_message(operation.started_at),
        end_time=time_message(operation.finished_at),
        trace_id=trace_id_of(operation.traceparent),
        needs_attention=operation.needs_attention,
        deadline=time_message(operation.deadline),
    )
    if operation.progress is not None:
        progress = operation.progress
        message.progress.CopyFrom(
            operation_pb2.Progress(done=progress.done, total=progress.total, unit=progress.unit)
        )
    if operation.error is not None:
        error = operation.error
        message.error.CopyFrom(
            operation_pb2.Problem(reason=error.reason, detail=error.message, metadata=dict(error.metadata))
        )
    return message


def node_message(node: Node) -> host_pb2.Node:
    """Return a node."""
    return host_pb2.Node(
        name=node.name,
        state=host_pb2.NodeState.Value(f"NODE_STATE_{node.state.value}"),
        arch=node.arch,
        qemu_version=node.qemu_version,
        accelerators=[
            host_pb2.Accelerator(name=item.name, usable=item.usable, reason=item.reason)
            for item in node.accelerators
        ],
        accelerator=node.accelerator,
        speed_factor=node.speed_factor,
        cpus=host_pb2.CpuCapacity(total=node.cpus_total, allocated=node.cpus_allocated),
        memory=host_pb2.MemoryCapacity(total=node.memory_total_mib, allocated=node.memory_allocated_mib),
        disk=host_pb2.DiskCapacity(total=node.disk_total_mib, free=node.disk_free_mib),
        message=node.message,
    )


def leak_message(leak: Leak) -> host_pb2.Leak:
    """Return a leak."""
    return host_pb2.Leak(kind=leak.kind, name=leak.name, owner=leak.owner, since=time_message(leak.since))


def check_message(check: Check) -> host_pb2.Check:
    """Return a check of the doctor."""
    status = host_pb2.CheckStatus.Value(f"CHECK_STATUS_{check.status.value}")
    return host_pb2.Check(name=check.name, status=status, detail=check.detail, fix=check.fix)


def dependency_message(dependency: Dependency) -> host_pb2.Dependency:
    """Return a dependency."""
    return host_pb2.Dependency(
        name=dependency.name,
        up=dependency.up,
        since=time_message(dependency.since),
        detail=dependency.detail,
    )


def time_message(moment: datetime | None) -> Timestamp | None:
    """Return a time; None where there is none."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _status(instance: Instance) -> instance_pb2.InstanceStatus:
    machine = instance.machine
    message = instance_pb2.InstanceStatus(
        state=instance_pb2.InstanceState.Value(f"INSTANCE_STATE_{instance.state.value}"),
        reason=instance.reason,
        message=instance.message,
        observed_generation=instance.observed_generation,
        node=instance.node,
        nics=[_nic(nic) for nic in instance.nic_views],
        conditions=[_condition(condition) for condition in instance.conditions],
        operation=instance.operation,
    )
    if machine is None:
        return message
    message.accelerator = machine.accelerator
    message.boot_phases.extend(_phases(machine.boot_phases))
    if machine.guest is not None:
        message.guest.CopyFrom(_guest(machine.guest))
    if instance.state is InstanceState.FAILED and machine.exit is not None:
        message.stderr_tail = machine.exit.stderr_tail
        message.console_tail = machine.exit.console_tail
    return message


def _stage(stage: Stage) -> operation_pb2.Stage:
    return operation_pb2.Stage(
        name=stage.name,
        state=operation_pb2.StageState.Value(f"STAGE_STATE_{stage.state.value}"),
        start_time=time_message(stage.start_time),
        duration_ms=stage.duration_ms or 0,
    )


def _nic(nic: NicView) -> instance_pb2.NicStatus:
    return instance_pb2.NicStatus(
        network=nic.network,
        mac=nic.mac,
        addresses=[
            instance_pb2.NicAddress(address=item.address, family=item.family, source=item.source)
            for item in nic.addresses
        ],
        ports=[
            instance_pb2.PortMapping(
                host=port.host, guest=port.guest, protocol=port.protocol, address=port.address
            )
            for port in nic.ports
        ],
    )


def _condition(condition: Condition) -> instance_pb2.Condition:
    return instance_pb2.Condition(
        type=condition.type,
        status=instance_pb2.ConditionStatus.Value(f"CONDITION_STATUS_{condition.status.value}"),
        reason=condition.reason,
        message=condition.message,
        last_transition_time=time_message(condition.last_transition_time),
    )


def _guest(guest: Guest) -> instance_pb2.GuestInfo:
    message = instance_pb2.GuestInfo(hostname=guest.hostname)
    if guest.os is not None:
        message.os.CopyFrom(
            instance_pb2.GuestOs(
                id=guest.os.id,
                name=guest.os.name,
                pretty_name=guest.os.pretty_name,
                version=guest.os.version,
                kernel_release=guest.os.kernel_release,
                machine=guest.os.machine,
            )
        )
    return message


def _phases(phases: Sequence[BootPhase]) -> list[instance_pb2.BootPhase]:
    return [
        instance_pb2.BootPhase(
            name=phase.name, start_time=time_message(phase.start_time), duration_ms=phase.duration_ms
        )
        for phase in phases
    ]


def _readiness(readiness: Readiness) -> instance_pb2.Readiness:
    message = instance_pb2.Readiness(deadline=duration_text(readiness.deadline_s))
    for probe in readiness.probes:
        match probe:
            case Probe.AGENT:
                message.all.add(agent=instance_pb2.AgentProbe())
    return message
