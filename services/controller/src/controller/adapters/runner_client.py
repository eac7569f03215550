"""A runner over gRPC. Every call has a deadline."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing
from typing import Final

import grpc
from qcontroller.runner.v1 import runner_pb2 as pb
from qcontroller.runner.v1.runner_pb2_grpc import HostServiceStub, MachineServiceStub

from controller.adapters.console_client import ConsoleClient
from controller.adapters.console_messages import console_chunk_of
from controller.adapters.guest_client import GuestClient
from controller.adapters.machine_messages import (
    check_of,
    dependency_of,
    leak_of,
    machine_of,
    node_of,
    spec_message,
    unclaimed_of,
)
from controller.adapters.peer import MessageT, Peer
from controller.domain.console import ConsoleChunk, ConsoleWish
from controller.domain.machine import (
    ExecRequest,
    ExecResult,
    Machine,
    MachinePlan,
    MachineSpec,
)
from controller.domain.node import Check, Host, Leak, Node
from controller.domain.orphan import Unclaimed
from controller.ports import ConsoleAccess, EvidencePart, Fencing, GuestAccess, SnapshotComplete

_PLAN_S: Final = 10.0
_HOST_S: Final = 5.0
_DOCTOR_S: Final = 45.0
_CONSOLE_IDLE_S: Final = 30.0
# The runner sends an empty message every 5 s: one that is frozen or cut off says nothing, and the
# channel's keepalive was seen not to notice it on a unix socket.
_WATCH_IDLE_S: Final = 15.0
_EXEC_MARGIN_S: Final = 10.0
_EVIDENCE_S: Final = 10.0
_MOST_S: Final = 600.0
_STOP_STEPS: Final = {
    pb.STOP_STEP_POWERDOWN: "powerdown",
    pb.STOP_STEP_QUIT: "quit",
    pb.STOP_STEP_KILL: "kill",
}


class RunnerClient:
    """Implements `Runner` for one node."""

    def __init__(self, node: str, channel: grpc.aio.Channel) -> None:
        self.node = node
        self._machines = MachineServiceStub(channel)
        self._host = HostServiceStub(channel)
        self._peer = Peer(f"the runner of {node}", "RUNNER_UNAVAILABLE")
        self.guests: GuestAccess = GuestClient(self._peer, channel)
        self.consoles: ConsoleAccess = ConsoleClient(self._peer, channel)

    async def plan(
        self, machine_id: str, spec: MachineSpec, *, network_only: bool = False, reserve: bool = False
    ) -> MachinePlan:
        request = pb.PlanMachineRequest(
            machine_id=machine_id, spec=spec_message(spec), network_only=network_only, reserve=reserve
        )
        with self._peer.errors():
            answer = await self._machines.PlanMachine(request, timeout=_PLAN_S)
        return MachinePlan(
            tuple(answer.qemu_argv),
            answer.accelerator,
            tuple(answer.warnings),
            tuple(answer.networks),
            tuple(answer.addresses),
        )

    async def prepare(
        self, fencing: Fencing, spec: MachineSpec, progress: Callable[[int, int, str], None]
    ) -> Machine:
        request = pb.PrepareMachineRequest(
            fencing=_fencing(fencing), spec=spec_message(spec), traceparent=fencing.traceparent
        )
        machine = None
        call = self._machines.PrepareMachine(request, timeout=_bounded(fencing.timeout_s))
        async for message in self._peer.messages(call, idle_s=None):
            match message.WhichOneof("part"):
                case "transfer":
                    progress(message.transfer.done, message.transfer.total, message.transfer.unit)
                case "machine":
                    machine = machine_of(message.machine)
                case None:
                    continue
        return machine if machine is not None else await self._get(fencing)

    async def start(self, fencing: Fencing) -> Machine:
        request = pb.StartMachineRequest(fencing=_fencing(fencing), traceparent=fencing.traceparent)
        answer = await self._call(self._machines.StartMachine(request, timeout=_bounded(fencing.timeout_s)))
        return machine_of(answer.machine)

    async def stop(
        self, fencing: Fencing, *, force: bool, grace_s: float, stage: Callable[[str], Awaitable[None]]
    ) -> Machine:
        request = pb.StopMachineRequest(fencing=_fencing(fencing), force=force, grace_ms=int(grace_s * 1000))
        machine = None
        call = self._machines.StopMachine(request, timeout=_bounded(fencing.timeout_s))
        async for message in self._peer.messages(call, idle_s=None):
            match message.WhichOneof("part"):
                case "step":
                    if message.step in _STOP_STEPS:
                        await stage(_STOP_STEPS[message.step])
                case "machine":
                    machine = machine_of(message.machine)
                case None:
                    continue
        return machine if machine is not None else await self._get(fencing)

    async def claim(self, fencing: Fencing, name: str, cluster_id: str, record: str) -> Machine:
        request = pb.ClaimMachineRequest(
            fencing=_fencing(fencing), name=name, cluster_id=cluster_id, instance_record=record
        )
        answer = await self._call(self._machines.ClaimMachine(request, timeout=_bounded(fencing.timeout_s)))
        return machine_of(answer.machine)

    async def pause(self, fencing: Fencing) -> Machine:
        request = pb.PauseMachineRequest(fencing=_fencing(fencing))
        answer = await self._call(self._machines.PauseMachine(request, timeout=_bounded(fencing.timeout_s)))
        return machine_of(answer.machine)

    async def resume(self, fencing: Fencing) -> Machine:
        request = pb.ResumeMachineRequest(fencing=_fencing(fencing))
        answer = await self._call(self._machines.ResumeMachine(request, timeout=_bounded(fencing.timeout_s)))
        return machine_of(answer.machine)

    async def reset(self, fencing: Fencing) -> Machine:
        request = pb.ResetMachineRequest(fencing=_fencing(fencing))
        answer = await self._call(self._machines.ResetMachine(request, timeout=_bounded(fencing.timeout_s)))
        return machine_of(answer.machine)

    async def delete(self, fencing: Fencing) -> None:
        request = pb.DeleteMachineRequest(fencing=_fencing(fencing))
        await self._call(self._machines.DeleteMachine(request, timeout=_bounded(fencing.timeout_s)))

    async def quiesce(self, fencing: Fencing) -> Machine:
        request = pb.QuiesceMachineRequest(fencing=_fencing(fencing))
        answer = await self._call(self._machines.QuiesceMachine(request, timeout=_bounded(fencing.timeout_s)))
        return machine_of(answer.machine)

    async def get(self, machine_id: str, *, fence: int = 0, timeout_s: float = 10.0) -> Machine:
        request = pb.GetMachineRequest(machine_id=machine_id, fence=fence)
        answer = await self._call(self._machines.GetMachine(request, timeout=timeout_s))
        return machine_of(answer.machine)

    async def watch(self) -> AsyncIterator[Machine | SnapshotComplete | Node]:
        call = self._machines.WatchMachines(pb.WatchMachinesRequest())
        async for message in self._peer.messages(call, idle_s=_WATCH_IDLE_S):
            match message.WhichOneof("part"):
                case "machine":
                    yield machine_of(message.machine)
                case "snapshot_complete":
                    yield SnapshotComplete()
                case "node":
                    yield node_of(message.node, self.node)
                case None:
                    continue

    async def read_console(self, machine_id: str, wish: ConsoleWish) -> AsyncGenerator[ConsoleChunk, None]:
        request = pb.ReadMachineConsoleRequest(
            machine_id=machine_id,
            offset=wish.offset,
            length=wish.length,
            follow=wish.follow,
            timestamps=wish.timestamps,
        )
        timeout_s, idle_s = (None, _WATCH_IDLE_S) if wish.follow else (_MOST_S, _CONSOLE_IDLE_S)
        messages = self._peer.messages(
            self._machines.ReadMachineConsole(request, timeout=timeout_s), idle_s=idle_s
        )
        # Closed at once when nobody wants more: the runner counts who follows.
        async with aclosing(messages):
            async for message in messages:
                yield console_chunk_of(message)

    async def evidence(self, machine_id: str, trace_id: str) -> AsyncIterator[EvidencePart]:
        request = pb.ReadMachineEvidenceRequest(machine_id=machine_id, trace_id=trace_id)
        call = self._machines.ReadMachineEvidence(request, timeout=_EVIDENCE_S)
        async for message in self._peer.messages(call, idle_s=_EVIDENCE_S):
            yield EvidencePart(message.name, message.content)

    async def execute(self, machine_id: str, request: ExecRequest) -> ExecResult:
        message = pb.ExecMachineRequest(
            machine_id=machine_id,
            argv=request.argv,
            env=dict(request.env),
            stdin=request.stdin,
            timeout_ms=int(request.timeout_s * 1000),
        )
        deadline_s = request.timeout_s + _EXEC_MARGIN_S
        answer = await self._call(self._machines.ExecMachine(message, timeout=deadline_s))
        return ExecResult(answer.exit_code, answer.stdout, answer.stderr, answer.truncated)

    async def host(self) -> Host:
        answer = await self._call(self._host.GetHost(pb.GetHostRequest(), timeout=_HOST_S))
        dependencies = tuple(dependency_of(item) for item in answer.dependencies)
        return Host(node_of(answer.node, self.node), dependencies)

    async def leaks(self) -> list[Leak]:
        request = pb.ListHostLeaksRequest()
        answer = await self._call(self._host.ListHostLeaks(request, timeout=_DOCTOR_S))
        return [leak_of(item) for item in answer.leaks]

    async def unclaimed(self, claimed: Collection[str]) -> list[Unclaimed]:
        request = pb.ListUnclaimedMachinesRequest(claimed_ids=sorted(claimed))
        answer = await self._call(self._host.ListUnclaimedMachines(request, timeout=_DOCTOR_S))
        return [unclaimed_of(item) for item in answer.machines]

    async def doctor(self) -> list[Check]:
        request = pb.RunHostDoctorRequest()
        answer = await self._call(self._host.RunHostDoctor(request, timeout=_DOCTOR_S))
        return [check_of(item) for item in answer.checks]

    async def _get(self, fencing: Fencing) -> Machine:
        return await self.get(fencing.machine_id, fence=fencing.fence, timeout_s=fencing.timeout_s)

    async def _call(self, call: Awaitable[MessageT]) -> MessageT:
        with self._peer.errors():
            return await call


def _fencing(fencing: Fencing) -> pb.Fencing:
    return pb.Fencing(machine_id=fencing.machine_id, fence=fencing.fence, request_id=fencing.request_id)


def _bounded(timeout_s: float) -> float:
    return min(timeout_s, _MOST_S)
