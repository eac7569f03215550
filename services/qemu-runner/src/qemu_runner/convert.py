"""Between the contract's messages and the domain's values. Nothing else knows the messages."""

import re
from typing import Final

from qcontroller.controller.v1 import instance_pb2
from qcontroller.runner.v1 import runner_pb2

from qemu_runner.console_messages import trouble_message
from qemu_runner.domain.boot import ReachedPhase
from qemu_runner.domain.cloud_init import CloudInitReport
from qemu_runner.domain.fencing import Fencing
from qemu_runner.domain.machine import (
    DiskFormat,
    Image,
    MachineId,
    MachinePhase,
    MachineSpec,
    Nic,
    PortMapping,
    Seed,
    is_digest,
    parse_machine_id,
)
from qemu_runner.domain.observation import AgentState, NicState, Observation
from qemu_runner.domain.probe import ProbeResult
from qemu_runner.domain.progress import Part, StopStep, Transfer
from qemu_runner.domain.record import MachineExit
from qemu_runner.errors import SpecFault, SpecInvalidError
from qemu_runner.guest_messages import address_message, info_message, time_message
from qemu_runner.probe_messages import probe_message, probe_of
from qemu_runner.service.quarantine import Unclaimed

_SEED_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_PHASES: Final = {
    MachinePhase.ABSENT: runner_pb2.MACHINE_PHASE_ABSENT,
    MachinePhase.PREPARING: runner_pb2.MACHINE_PHASE_PREPARING,
    MachinePhase.PREPARED: runner_pb2.MACHINE_PHASE_PREPARED,
    MachinePhase.ACTIVE: runner_pb2.MACHINE_PHASE_ACTIVE,
    MachinePhase.EXITED: runner_pb2.MACHINE_PHASE_EXITED,
}
_STEPS: Final = {
    StopStep.POWERDOWN: runner_pb2.STOP_STEP_POWERDOWN,
    StopStep.QUIT: runner_pb2.STOP_STEP_QUIT,
    StopStep.KILL: runner_pb2.STOP_STEP_KILL,
}


def machine_id_of(text: str) -> MachineId:
    """Return the id.

    Raises:
        SpecInvalidError: It is none.
    """
    try:
        return parse_machine_id(text)
    except ValueError as exc:
        raise SpecInvalidError((SpecFault("/id", f"{exc}."),)) from exc


def trace_id_of(text: str) -> str:
    """Return the trace id; "" for none.

    Raises:
        SpecInvalidError: It is none (W3C Trace Context: 32 lower-case hex digits).
    """
    if text and not _TRACE_ID.fullmatch(text):
        raise SpecInvalidError((SpecFault("/traceId", "must be 32 hex digits."),))
    return text


def fencing_of(message: runner_pb2.Fencing) -> Fencing:
    """Return the fencing.

    Raises:
        SpecInvalidError: The id is none.
    """
    return Fencing(machine_id_of(message.machine_id), message.fence, message.request_id)


def spec_of(message: runner_pb2.MachineSpec) -> MachineSpec:
    """Return the spec.

    Raises:
        SpecInvalidError: The image's digest or format is none.
    """
    faults = []
    if not is_digest(message.image.stored_digest):
        faults.append(SpecFault("/imageDigest", "is no digest."))
    formats = [one for one in DiskFormat if one.value == message.image.format]
    if not formats:
        faults.append(SpecFault("/image", f"its format {message.image.format!r} cannot be run."))
    if faults:
        raise SpecInvalidError(tuple(faults))
    return MachineSpec(
        name=message.name,
        arch=message.arch,
        cpus=message.cpus,
        memory_mib=message.memory_mib,
        disk_bytes=message.disk_bytes,
        image=Image(message.image.stored_digest, formats[0], message.image.virtual_size_bytes),
        nics=tuple(
            Nic(
                nic.network,
                nic.mac,
                tuple(PortMapping(p.host, p.guest, p.protocol or "tcp", p.address) for p in nic.ports),
                nic.address,
                nic.planned,
            )
            for nic in message.nics
        ),
        cluster_id=message.cluster_id,
        instance_record=message.instance_record,
        probes=tuple(probe_of(probe) for probe in message.probes),
    )


def seed_of(message: runner_pb2.MachineSeed) -> Seed:
    """Return the seed's files.

    Raises:
        SpecInvalidError: Its instance-id is no plain word.
    """
    if message.instance_id and not _SEED_ID.fullmatch(message.instance_id):
        raise SpecInvalidError((SpecFault("/seed/instanceId", "must be letters, digits and hyphens."),))
    return Seed(
        message.user_data,
        message.network_config,
        message.hostname,
        message.instance_id,
        keep=message.keep,
        vendor_data=message.vendor_data,
        public_keys=tuple(message.public_keys),
    )


def machine_message(seen: Observation) -> runner_pb2.Machine:
    """Return what is told of a machine."""
    message = runner_pb2.Machine(
        machine_id=seen.machine_id,
        phase=_PHASES[seen.phase],
        run_state=seen.run_state,
        incarnation=seen.incarnation,
        accelerator=seen.accelerator,
        nics=[_nic(state) for state in seen.nics],
        agent=_agent(seen.agent),
        boot_phases=[_phase(phase) for phase in seen.boot_phases],
        fence=seen.fence,
        revision=seen.revision,
        network_fault=seen.network_fault,
        boots=seen.boots,
        panicked=seen.panicked,
        io_error=seen.io_error,
        probes=[_probe_result(result) for result in seen.probes],
        cloud_init=seen.cloud_init.result,
        cloud_init_detail=seen.cloud_init.detail,
        troubles=[trouble_message(trouble) for trouble in seen.troubles],
    )
    if seen.cloud_init_report is not None:
        message.cloud_init_status.CopyFrom(cloud_init_message(seen.cloud_init_report))
    if seen.boot_time is not None:
        message.boot_time.CopyFrom(time_message(seen.boot_time))
    if seen.exit is not None:
        message.exit.CopyFrom(_exit(seen.exit))
    if seen.start_time is not None:
        message.start_time.CopyFrom(time_message(seen.start_time))
    if seen.spec is not None:
        message.spec.CopyFrom(_spec(seen.spec))
    return message


def cloud_init_message(report: CloudInitReport) -> instance_pb2.CloudInitStatus:
    """Return what is told of a guest's cloud-init."""
    return instance_pb2.CloudInitStatus(
        state=report.state,
        datasource=report.datasource,
        stages=[
            instance_pb2.CloudInitStage(
                name=stage.name,
                start_time=None if stage.start_time is None else time_message(stage.start_time),
                finish_time=None if stage.finish_time is None else time_message(stage.finish_time),
                errors=stage.errors,
                warnings=stage.warnings,
            )
            for stage in report.stages
        ],
        errors=report.errors,
        failed_modules=report.failed_modules,
        warnings=report.warnings,
        schema_errors=report.schema_errors,
    )


def unclaimed_message(found: Unclaimed) -> runner_pb2.UnclaimedMachine:
    """Return what is told of a machine that the caller does not know."""
    return runner_pb2.UnclaimedMachine(
        directory=found.observation.machine_id,
        machine=machine_message(found.observation),
        since=time_message(found.since),
        disk_bytes=found.disk_bytes,
        fault=found.fault,
        running=found.running,
    )


def prepare_message(part: Part) -> runner_pb2.PrepareMachineResponse:
    """Return what is told of a prepare in progress."""
    if not isinstance(part, Transfer):
        raise TypeError("a prepare tells of transfers only")
    return runner_pb2.PrepareMachineResponse(
        transfer=runner_pb2.Transfer(done=part.done, total=part.total, unit="bytes")
    )


def stop_message(part: Part) -> runner_pb2.StopMachineResponse:
    """Return what is told of a stop in progress."""
    if not isinstance(part, StopStep):
        raise TypeError("a stop tells of its steps only")
    return runner_pb2.StopMachineResponse(step=_STEPS[part])


def _exit(exit_: MachineExit) -> runner_pb2.MachineExit:
    return runner_pb2.MachineExit(
        reason=exit_.reason,
        message=exit_.message,
        code=exit_.code,
        signal=exit_.signal,
        stderr_tail=exit_.stderr_tail,
        console_tail=exit_.console_tail,
        time=time_message(exit_.time),
    )


def _port(port: PortMapping) -> instance_pb2.PortMapping:
    return instance_pb2.PortMapping(
        host=port.host, guest=port.guest, protocol=port.protocol, address=port.address
    )


def _nic(state: NicState) -> instance_pb2.NicStatus:
    return instance_pb2.NicStatus(
        network=state.nic.network,
        mac=state.nic.mac,
        addresses=[address_message(one) for one in state.addresses],
        ports=[_port(port) for port in state.nic.ports],
    )


def _agent(state: AgentState) -> runner_pb2.MachineAgent:
    message = runner_pb2.MachineAgent(connected=state.connected)
    if state.since is not None:
        message.since.CopyFrom(time_message(state.since))
    if state.info is not None:
        message.info.CopyFrom(info_message(state.info))
    return message


def _probe_result(result: ProbeResult) -> runner_pb2.ProbeResult:
    return runner_pb2.ProbeResult(
        holds=result.holds,
        evidence=result.evidence,
        since=None if result.since is None else time_message(result.since),
    )


def _phase(phase: ReachedPhase) -> instance_pb2.BootPhase:
    duration = phase.end_time - phase.start_time
    return instance_pb2.BootPhase(
        name=phase.name,
        start_time=time_message(phase.start_time),
        duration_ms=round(duration.total_seconds() * 1000),
    )


def _spec(spec: MachineSpec) -> runner_pb2.MachineSpec:
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
                ports=[_port(p) for p in nic.ports],
                address=nic.address,
                planned=nic.planned,
            )
            for nic in spec.nics
        ],
        cluster_id=spec.cluster_id,
        instance_record=spec.instance_record,
        probes=[probe_message(probe) for probe in spec.probes],
    )
