"""The gRPC face of the runner: messages in, messages out; every decision is the services'."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from qcontroller.runner.v1 import runner_pb2, runner_pb2_grpc
from servicekit.telemetry import current_traceparent

from qemu_runner import convert, host_messages
from qemu_runner.console_messages import console_message, reading_of
from qemu_runner.domain.machine import MachineId
from qemu_runner.domain.observation import Observation
from qemu_runner.errors import MachineNotFoundError
from qemu_runner.service.actions import Actions, Emit
from qemu_runner.service.console_sessions import ConsoleSessions
from qemu_runner.service.consoles import Consoles
from qemu_runner.service.doctor import Doctor
from qemu_runner.service.ending import Ending
from qemu_runner.service.evidence import Evidence
from qemu_runner.service.freezing import Freezing
from qemu_runner.service.guest import Guests
from qemu_runner.service.guest_accounts import GuestAccounts
from qemu_runner.service.guest_reports import GuestReports
from qemu_runner.service.guest_transfers import GuestTransfers
from qemu_runner.service.host import Host
from qemu_runner.service.hub import Heartbeat, NodeChanged, SnapshotComplete
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.planning import Planning
from qemu_runner.service.power import Power
from qemu_runner.service.preparation import Preparation
from qemu_runner.service.quarantine import Quarantine
from qemu_runner.service.removal import Removal
from qemu_runner.service.starting import Starting


@dataclass(frozen=True, slots=True)
class Services:
    """What the servicers hand their calls to."""

    machines: Machines
    actions: Actions
    planning: Planning
    preparation: Preparation
    starting: Starting
    ending: Ending
    power: Power
    removal: Removal
    quarantine: Quarantine
    console_sessions: ConsoleSessions
    consoles: Consoles
    guests: Guests
    guest_reports: GuestReports
    guest_transfers: GuestTransfers
    guest_accounts: GuestAccounts
    freezing: Freezing
    evidence: Evidence
    host: Host
    doctor: Doctor


class MachineServicer(runner_pb2_grpc.MachineServiceServicer):
    """`MachineService`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def PlanMachine(
        self, request: runner_pb2.PlanMachineRequest, _context: Any
    ) -> runner_pb2.PlanMachineResponse:
        machine_id, spec = convert.machine_id_of(request.machine_id), convert.spec_of(request.spec)
        planning = self._services.planning
        if request.network_only:
            plan = await planning.plan_network(machine_id, spec)
        else:
            plan = await planning.plan(machine_id, spec, reserve=request.reserve)
        return runner_pb2.PlanMachineResponse(
            qemu_argv=plan.qemu_argv,
            accelerator=plan.accelerator,
            warnings=plan.warnings,
            networks=plan.networks,
            addresses=plan.addresses,
        )

    async def PrepareMachine(
        self, request: runner_pb2.PrepareMachineRequest, _context: Any
    ) -> AsyncIterator[runner_pb2.PrepareMachineResponse]:
        spec, seed = convert.spec_of(request.spec), convert.seed_of(request.spec.seed)
        fencing = convert.fencing_of(request.fencing)

        async def body(machine: Machine, emit: Emit) -> None:
            await self._services.preparation.prepare(machine, spec, seed, emit)

        async with self._services.machines.using(fencing.machine_id) as machine:
            parts = self._services.actions.stream("prepare", fencing, body, abortable=True)
            # Closed at once when the caller hangs up, not when the collector finds it.
            async with aclosing(parts):
                async for part in parts:
                    yield convert.prepare_message(part)
            yield runner_pb2.PrepareMachineResponse(machine=self._message(machine))

    async def StartMachine(
        self, request: runner_pb2.StartMachineRequest, _context: Any
    ) -> runner_pb2.StartMachineResponse:
        traceparent = request.traceparent or current_traceparent()

        async def body(machine: Machine, _emit: Emit) -> None:
            await self._services.starting.start(machine, traceparent)

        seen = await self._services.actions.perform("start", convert.fencing_of(request.fencing), body)
        return runner_pb2.StartMachineResponse(machine=convert.machine_message(seen))

    async def StopMachine(
        self, request: runner_pb2.StopMachineRequest, _context: Any
    ) -> AsyncIterator[runner_pb2.StopMachineResponse]:
        fencing = convert.fencing_of(request.fencing)

        async def body(machine: Machine, emit: Emit) -> None:
            await self._services.ending.stop(
                machine, force=request.force, grace_s=request.grace_ms / 1000, emit=emit
            )

        async with self._services.machines.using(fencing.machine_id) as machine:
            parts = self._services.actions.stream("stop", fencing, body, abortable=True)
            # Closed at once when the caller hangs up, not when the collector finds it.
            async with aclosing(parts):
                async for part in parts:
                    yield convert.stop_message(part)
            yield runner_pb2.StopMachineResponse(machine=self._message(machine))

    async def ClaimMachine(
        self, request: runner_pb2.ClaimMachineRequest, _context: Any
    ) -> runner_pb2.ClaimMachineResponse:
        async def body(machine: Machine, _emit: Emit) -> None:
            await self._services.quarantine.claim(
                machine, request.name, request.cluster_id, request.instance_record
            )

        seen = await self._services.actions.perform("claim", convert.fencing_of(request.fencing), body)
        return runner_pb2.ClaimMachineResponse(machine=convert.machine_message(seen))

    async def PauseMachine(
        self, request: runner_pb2.PauseMachineRequest, _context: Any
    ) -> runner_pb2.PauseMachineResponse:
        async def body(machine: Machine, _emit: Emit) -> None:
            await self._services.power.pause(machine)

        seen = await self._services.actions.perform("pause", convert.fencing_of(request.fencing), body)
        return runner_pb2.PauseMachineResponse(machine=convert.machine_message(seen))

    async def ResumeMachine(
        self, request: runner_pb2.ResumeMachineRequest, _context: Any
    ) -> runner_pb2.ResumeMachineResponse:
        async def body(machine: Machine, _emit: Emit) -> None:
            await self._services.power.resume(machine)

        seen = await self._services.actions.perform("resume", convert.fencing_of(request.fencing), body)
        return runner_pb2.ResumeMachineResponse(machine=convert.machine_message(seen))

    async def ResetMachine(
        self, request: runner_pb2.ResetMachineRequest, _context: Any
    ) -> runner_pb2.ResetMachineResponse:
        async def body(machine: Machine, _emit: Emit) -> None:
            await self._services.power.reset(machine, request.fencing.request_id)

        seen = await self._services.actions.perform("reset", convert.fencing_of(request.fencing), body)
        return runner_pb2.ResetMachineResponse(machine=convert.machine_message(seen))

    async def DeleteMachine(
        self, request: runner_pb2.DeleteMachineRequest, _context: Any
    ) -> runner_pb2.DeleteMachineResponse:
        async def body(machine: Machine, emit: Emit) -> None:
            await self._services.removal.remove(machine, emit)

        await self._services.actions.perform("delete", convert.fencing_of(request.fencing), body)
        return runner_pb2.DeleteMachineResponse()

    async def QuiesceMachine(
        self, request: runner_pb2.QuiesceMachineRequest, _context: Any
    ) -> runner_pb2.QuiesceMachineResponse:
        # Whoever has the lock has waited for all that was in flight; keeping the fence is all that is left.
        seen = await self._services.actions.perform("quiesce", convert.fencing_of(request.fencing), _nothing)
        return runner_pb2.QuiesceMachineResponse(machine=convert.machine_message(seen))

    async def GetMachine(
        self, request: runner_pb2.GetMachineRequest, _context: Any
    ) -> runner_pb2.GetMachineResponse:
        machine_id = convert.machine_id_of(request.machine_id)
        async with self._services.machines.using(machine_id) as machine:
            if request.fence:
                async with machine.lock:
                    await self._services.machines.raise_fence(machine, request.fence)
            else:
                await self._services.machines.learn_fence(machine)
            return runner_pb2.GetMachineResponse(machine=self._message(machine))

    async def ListMachines(
        self, _request: runner_pb2.ListMachinesRequest, _context: Any
    ) -> runner_pb2.ListMachinesResponse:
        return runner_pb2.ListMachinesResponse(
            machines=[self._message(machine) for machine in self._services.machines]
        )

    async def WatchMachines(
        self, _request: runner_pb2.WatchMachinesRequest, _context: Any
    ) -> AsyncIterator[runner_pb2.WatchMachinesResponse]:
        async for notice in self._services.machines.watch():
            match notice:
                case Observation():
                    yield runner_pb2.WatchMachinesResponse(machine=convert.machine_message(notice))
                case SnapshotComplete():
                    yield runner_pb2.WatchMachinesResponse(snapshot_complete=runner_pb2.SnapshotComplete())
                case NodeChanged():
                    node = host_messages.node_message(await self._services.host.node())
                    yield runner_pb2.WatchMachinesResponse(node=node)
                case Heartbeat():
                    yield runner_pb2.WatchMachinesResponse()

    async def ReadMachineConsole(
        self, request: runner_pb2.ReadMachineConsoleRequest, _context: Any
    ) -> AsyncIterator[runner_pb2.ReadMachineConsoleResponse]:
        machine = self._known(convert.machine_id_of(request.machine_id))
        pieces = self._services.consoles.of(machine.machine_id).read(reading_of(request))
        # Closed at once when the caller hangs up: who follows has a place that another may want.
        async with aclosing(pieces):
            async for piece in pieces:
                yield console_message(piece)

    async def ReadMachineEvidence(
        self, request: runner_pb2.ReadMachineEvidenceRequest, _context: Any
    ) -> AsyncIterator[runner_pb2.ReadMachineEvidenceResponse]:
        machine_id = convert.machine_id_of(request.machine_id)
        async for part in self._services.evidence.collect(machine_id, convert.trace_id_of(request.trace_id)):
            yield runner_pb2.ReadMachineEvidenceResponse(name=part.name, content=part.content)

    async def ExecMachine(
        self, request: runner_pb2.ExecMachineRequest, _context: Any
    ) -> runner_pb2.ExecMachineResponse:
        result = await self._services.guests.execute(
            convert.machine_id_of(request.machine_id),
            tuple(request.argv),
            dict(request.env),
            request.stdin,
            request.timeout_ms / 1000,
        )
        return runner_pb2.ExecMachineResponse(
            exit_code=result.exit_code,
            stdout=result.stdout,
            stderr=result.stderr,
            truncated=result.truncated,
        )

    def _message(self, machine: Machine) -> runner_pb2.Machine:
        return convert.machine_message(self._services.machines.observation(machine))

    def _known(self, machine_id: MachineId) -> Machine:
        machine = self._services.machines.find(machine_id)
        if machine is None or machine.record is None:
            raise MachineNotFoundError(machine_id)
        return machine


class HostServicer(runner_pb2_grpc.HostServiceServicer):
    """`HostService`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def GetHost(self, _request: runner_pb2.GetHostRequest, _context: Any) -> runner_pb2.GetHostResponse:
        host = self._services.host
        return runner_pb2.GetHostResponse(
            node=host_messages.node_message(await host.node()),
            dependencies=host_messages.dependency_messages(host.dependencies()),
        )

    async def ListHostLeaks(
        self, _request: runner_pb2.ListHostLeaksRequest, _context: Any
    ) -> runner_pb2.ListHostLeaksResponse:
        leaks = await self._services.host.leaks()
        return runner_pb2.ListHostLeaksResponse(leaks=host_messages.leak_messages(leaks))

    async def ListUnclaimedMachines(
        self, request: runner_pb2.ListUnclaimedMachinesRequest, _context: Any
    ) -> runner_pb2.ListUnclaimedMachinesResponse:
        found = await self._services.quarantine.unclaimed(frozenset(request.claimed_ids))
        return runner_pb2.ListUnclaimedMachinesResponse(
            machines=[convert.unclaimed_message(each) for each in found]
        )

    async def RunHostDoctor(
        self, _request: runner_pb2.RunHostDoctorRequest, _context: Any
    ) -> runner_pb2.RunHostDoctorResponse:
        checks = await self._services.doctor.examine()
        return runner_pb2.RunHostDoctorResponse(checks=host_messages.check_messages(checks))


async def _nothing(_machine: Machine, _emit: Emit) -> None:
    """Do nothing under the machine's lock."""
