"""Machines, nodes and specs between the runner's messages and the domain."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from qcontroller.controller.v1 import host_pb2, instance_pb2
from qcontroller.runner.v1 import runner_pb2

from controller.domain.cloud_init import CloudInit, CloudInitStage, CloudInitStatus
from controller.domain.machine import (
    Address,
    BootPhase,
    Guest,
    GuestInterface,
    GuestOs,
    GuestTimeZone,
    Machine,
    MachineExit,
    MachinePhase,
    MachineSpec,
    NicView,
    Port,
    ProbeView,
    Trouble,
)
from controller.domain.node import Accelerator, Check, CheckStatus, Dependency, Leak, Node, NodeState, VmHost
from controller.domain.orphan import Unclaimed
from controller.probe_messages import probe_message

_PHASE_PREFIX = "MACHINE_PHASE_"
_NODE_PREFIX = "NODE_STATE_"
_CHECK_PREFIX = "CHECK_STATUS_"


def machine_of(message: runner_pb2.Machine) -> Machine:
    """Return the observation that a runner sent."""
    return Machine(
        id=message.machine_id,
        phase=_phase(message.phase),
        run_state=message.run_state,
        incarnation=message.incarnation,
        exit=_exit(message.exit) if message.HasField("exit") else None,
        accelerator=message.accelerator,
        nics=tuple(_nic(nic) for nic in message.nics),
        agent_connected=message.agent.connected,
        guest=_guest(message.agent.info) if message.agent.HasField("info") else None,
        boot_phases=tuple(
            BootPhase(phase.name, _time(phase, "start_time"), phase.duration_ms)
            for phase in message.boot_phases
        ),
        start_time=_time(message, "start_time"),
        record=message.spec.instance_record,
        revision=message.revision,
        network_fault=message.network_fault,
        fence=message.fence,
        cluster_id=message.spec.cluster_id,
        boots=message.boots,
        boot_time=_time(message, "boot_time"),
        panicked=message.panicked,
        io_error=message.io_error,
        probes=tuple(ProbeView(one.holds, one.evidence, _time(one, "since")) for one in message.probes),
        cloud_init=_cloud_init(message.cloud_init),
        cloud_init_detail=message.cloud_init_detail,
        troubles=tuple(
            Trouble(one.kind, one.line, one.count, _time(one, "time")) for one in message.troubles
        ),
        cloud_init_status=(
            _cloud_init_status(message.cloud_init_status) if message.HasField("cloud_init_status") else None
        ),
    )


def spec_message(spec: MachineSpec) -> runner_pb2.MachineSpec:
    """Return what a runner is to make; it holds secrets."""
    return runner_pb2.MachineSpec(
        name=spec.name,
        arch=spec.arch,
        cpus=spec.cpus,
        memory_mib=spec.memory_mib,
        disk_bytes=spec.disk_bytes,
        image=runner_pb2.MachineImage(
            stored_digest=spec.image.stored_digest,
            format=spec.image.format,
            virtual_size_bytes=spec.image.virtual_size_bytes,
        ),
        nics=[
            runner_pb2.MachineNic(
                network=nic.network,
                mac=nic.mac,
                address=nic.address,
                planned=nic.planned,
                ports=[
                    instance_pb2.PortMapping(
                        host=port.host, guest=port.guest, protocol=port.protocol, address=port.address
                    )
                    for port in nic.ports
                ],
            )
            for nic in spec.nics
        ],
        seed=runner_pb2.MachineSeed(
            user_data=spec.user_data,
            network_config=spec.network_config.encode(),
            hostname=spec.first_boot.hostname or spec.name,
            vendor_data=spec.first_boot.vendor_data,
            public_keys=spec.first_boot.ssh_keys,
            instance_id=spec.seed_id,
            keep=spec.keep_seed,
        ),
        cluster_id=spec.cluster_id,
        instance_record=spec.record,
        probes=[probe_message(probe) for probe in spec.probes],
    )


def unclaimed_of(message: runner_pb2.UnclaimedMachine) -> Unclaimed:
    """Return a machine that the runner has and the caller did not name."""
    machine = replace(machine_of(message.machine), id=message.directory)
    return Unclaimed(machine, _time(message, "since"), message.disk_bytes, message.fault, message.running)


def node_of(message: host_pb2.Node, name: str) -> Node:
    """Return a node's form under the name that the settings give it."""
    return Node(
        name=name,
        state=_node_state(message.state),
        arch=message.arch,
        qemu_version=message.qemu_version,
        accelerators=tuple(Accelerator(item.name, item.usable, item.reason) for item in message.accelerators),
        accelerator=message.accelerator,
        speed_factor=message.speed_factor or 1.0,
        cpus_total=message.cpus.total,
        cpus_allocated=message.cpus.allocated,
        memory_total_mib=message.memory.total,
        memory_allocated_mib=message.memory.allocated,
        disk_total_mib=message.disk.total,
        disk_free_mib=message.disk.free,
        message=message.message,
        vm_hosts=tuple(
            VmHost(
                item.name,
                item.generation,
                item.qemu_version,
                _node_state(item.state),
                item.machines,
                _time(item, "since"),
                item.message,
            )
            for item in message.vm_hosts
        ),
    )


def leak_of(message: host_pb2.Leak) -> Leak:
    """Return one leak."""
    return Leak(message.kind, message.name, message.owner, _time(message, "since"))


def check_of(message: host_pb2.Check) -> Check:
    """Return one check of the doctor."""
    name = host_pb2.CheckStatus.Name(message.status).removeprefix(_CHECK_PREFIX)
    status = CheckStatus(name) if name in CheckStatus.__members__ else CheckStatus.FAIL
    return Check(message.name, status, message.detail, message.fix)


def dependency_of(message: host_pb2.Dependency) -> Dependency:
    """Return one dependency of a runner."""
    return Dependency(message.name, message.up, _time(message, "since"), message.detail)


def _phase(value: runner_pb2.MachinePhase.ValueType) -> MachinePhase:
    name = runner_pb2.MachinePhase.Name(value).removeprefix(_PHASE_PREFIX)
    return MachinePhase(name) if name in MachinePhase.__members__ else MachinePhase.ABSENT


def _cloud_init(word: str) -> CloudInit:
    return CloudInit(word) if word in set(CloudInit) else CloudInit.UNSEEN


def _cloud_init_status(message: instance_pb2.CloudInitStatus) -> CloudInitStatus:
    return CloudInitStatus(
        message.state,
        message.datasource,
        tuple(
            CloudInitStage(
                stage.name,
                _time(stage, "start_time"),
                _time(stage, "finish_time"),
                tuple(stage.errors),
                tuple(stage.warnings),
            )
            for stage in message.stages
        ),
        tuple(message.errors),
        tuple(message.failed_modules),
        tuple(message.warnings),
        tuple(message.schema_errors),
    )


def _node_state(value: host_pb2.NodeState.ValueType) -> NodeState:
    name = host_pb2.NodeState.Name(value).removeprefix(_NODE_PREFIX)
    return NodeState(name) if name in NodeState.__members__ else NodeState.READY


def _exit(message: runner_pb2.MachineExit) -> MachineExit:
    return MachineExit(
        message.reason,
        message.message,
        message.stderr_tail,
        message.console_tail,
        message.code if message.HasField("code") else None,
        message.signal if message.HasField("signal") else None,
        _time(message, "time"),
    )


def _nic(message: instance_pb2.NicStatus) -> NicView:
    return NicView(
        message.network,
        message.mac,
        _addresses(message.addresses),
        tuple(Port(port.host, port.guest, port.protocol, port.address) for port in message.ports),
    )


def _guest(message: instance_pb2.GuestInfo) -> Guest:
    os, zone = message.os, message.time_zone
    return Guest(
        message.hostname,
        GuestOs(os.id, os.name, os.pretty_name, os.version, os.kernel_release, os.machine)
        if message.HasField("os")
        else None,
        GuestTimeZone(zone.name, zone.offset_seconds) if message.HasField("time_zone") else None,
        tuple(GuestInterface(one.name, one.mac, _addresses(one.addresses)) for one in message.interfaces),
    )


def _addresses(messages: Iterable[instance_pb2.NicAddress]) -> tuple[Address, ...]:
    return tuple(Address(item.address, item.family, item.source) for item in messages)


def _time(
    message: runner_pb2.Machine
    | runner_pb2.MachineExit
    | runner_pb2.UnclaimedMachine
    | runner_pb2.ProbeResult
    | runner_pb2.ConsoleTrouble
    | host_pb2.Leak
    | host_pb2.Dependency
    | host_pb2.VmHost
    | instance_pb2.BootPhase
    | instance_pb2.CloudInitStage,
    name: str,
) -> datetime | None:
    if not message.HasField(name):  # type: ignore[arg-type]  # each of them has its own literal names
        return None
    stamp: Timestamp = getattr(message, name)
    return stamp.ToDatetime(UTC)
