"""The gRPC face of the fake runner: every RPC of the contract, with the real runner's refusals."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from qcontroller.controller.v1 import host_pb2
from qcontroller.runner.v1 import runner_pb2 as pb
from qcontroller.runner.v1 import runner_pb2_grpc
from qemu_runner import convert
from qemu_runner.errors import (
    GuestProgramNotFoundError,
    HostCapacityError,
    MachineNotFoundError,
    MachineStateError,
    PortUnavailableError,
    SpecFault,
    SpecInvalidError,
)
from qemu_runner.service.preparation import check_spec

from fakerunner.actions import Emit, Life

_ACTIVE: Final = pb.MACHINE_PHASE_ACTIVE
_PREPARING: Final = pb.MACHINE_PHASE_PREPARING
_FIXED: Final = ("arch", "cpus", "memory_mib", "disk_bytes", "image")
_CONSOLE: Final = b"Linux version fake\nlogin: "
_DEFAULT_NETWORK: Final = "user"


class FakeMachineServicer(runner_pb2_grpc.MachineServiceServicer):
    """`MachineService`; `life` is asked for anew by each call, since a crash begins another."""

    def __init__(self, life: Callable[[], Life], node: Callable[[], host_pb2.Node]) -> None:
        self._life = life
        self._node = node

    async def PlanMachine(self, request: pb.PlanMachineRequest, _context: Any) -> pb.PlanMachineResponse:
        life = self._life()
        machine_id = convert.machine_id_of(request.machine_id)
        spec = _resolved(request.spec)
        await life.faults.reach("plan.before", machine_id)
        if not request.network_only:
            check_spec(convert.spec_of(spec))
            _require_memory(life, machine_id, spec)
        _require_ports(life, machine_id, spec)
        networks = [nic.network for nic in spec.nics]
        if request.network_only:
            return pb.PlanMachineResponse(networks=networks)
        argv = ["qemu-system-x86_64", "-uuid", machine_id]
        return pb.PlanMachineResponse(qemu_argv=argv, accelerator="tcg", networks=networks)

    async def PrepareMachine(
        self, request: pb.PrepareMachineRequest, _context: Any
    ) -> AsyncIterator[pb.PrepareMachineResponse]:
        life, fencing = self._life(), request.fencing
        convert.spec_of(request.spec)
        machine_id = convert.machine_id_of(fencing.machine_id)
        spec = _resolved(request.spec)

        async def body(emit: Emit) -> None:
            await life.faults.reach("prepare.before", machine_id)
            await _prepare(life, fencing, spec, emit)
            await life.faults.reach("prepare.after", machine_id)

        async for part in life.perform("prepare", fencing, body, abortable=True):
            yield pb.PrepareMachineResponse(transfer=part)  # type: ignore[arg-type]  # it tells of transfers
        yield pb.PrepareMachineResponse(machine=life.seen(machine_id))

    async def StartMachine(self, request: pb.StartMachineRequest, _context: Any) -> pb.StartMachineResponse:
        life, fencing = self._life(), request.fencing

        def act() -> None:
            machine = _known(life, fencing.machine_id)
            if machine.phase == _PREPARING:
                raise MachineStateError(fencing.machine_id, "not prepared", "prepare it first")
            if machine.phase != _ACTIVE:
                _require_memory(life, fencing.machine_id, machine.spec)
                life.host.spawn(fencing.machine_id, fencing.fence, fencing.request_id)
            elif machine.run_state != "running":
                life.host.run_state(fencing.machine_id, "running", fencing.fence, fencing.request_id)

        return pb.StartMachineResponse(machine=await self._act(life, "start", fencing, act))

    async def StopMachine(
        self, request: pb.StopMachineRequest, _context: Any
    ) -> AsyncIterator[pb.StopMachineResponse]:
        life, fencing = self._life(), request.fencing
        machine_id = convert.machine_id_of(fencing.machine_id)

        async def body(emit: Emit) -> None:
            await life.faults.reach("stop.before", machine_id)
            if _known(life, machine_id).phase == _ACTIVE:
                gentle = not request.force and request.grace_ms > 0
                step = pb.STOP_STEP_POWERDOWN if gentle else pb.STOP_STEP_QUIT
                emit(pb.StopMachineResponse(step=step))
                # Whoever watches the steps sees this one before the end.
                await asyncio.sleep(0)
                life.host.end(machine_id, "STOPPED", fence=fencing.fence, request_id=fencing.request_id)
            await life.faults.reach("stop.after", machine_id)

        async for part in life.perform("stop", fencing, body, abortable=True):
            yield part  # type: ignore[misc]  # a stop tells of its steps
        yield pb.StopMachineResponse(machine=life.seen(machine_id))

    async def ClaimMachine(self, request: pb.ClaimMachineRequest, _context: Any) -> pb.ClaimMachineResponse:
        life, fencing = self._life(), request.fencing

        def act() -> None:
            spec = pb.MachineSpec()
            spec.CopyFrom(_known(life, fencing.machine_id).spec)
            spec.name, spec.cluster_id = request.name, request.cluster_id
            spec.instance_record = request.instance_record
            life.host.record(fencing.machine_id, spec)

        return pb.ClaimMachineResponse(machine=await self._act(life, "claim", fencing, act))

    async def PauseMachine(self, request: pb.PauseMachineRequest, _context: Any) -> pb.PauseMachineResponse:
        life, fencing = self._life(), request.fencing
        machine = await self._act(life, "pause", fencing, lambda: _move(life, fencing, "paused"))
        return pb.PauseMachineResponse(machine=machine)

    async def ResumeMachine(
        self, request: pb.ResumeMachineRequest, _context: Any
    ) -> pb.ResumeMachineResponse:
        life, fencing = self._life(), request.fencing
        machine = await self._act(life, "resume", fencing, lambda: _move(life, fencing, "running"))
        return pb.ResumeMachineResponse(machine=machine)

    async def ResetMachine(self, request: pb.ResetMachineRequest, _context: Any) -> pb.ResetMachineResponse:
        life, fencing = self._life(), request.fencing

        def act() -> None:
            _running(life, fencing.machine_id)
            if life.host.resets.get(fencing.machine_id) != fencing.request_id:
                life.host.reset(fencing.machine_id, fencing.fence, fencing.request_id)

        return pb.ResetMachineResponse(machine=await self._act(life, "reset", fencing, act))

    async def DeleteMachine(
        self, request: pb.DeleteMachineRequest, _context: Any
    ) -> pb.DeleteMachineResponse:
        life, fencing = self._life(), request.fencing

        def act() -> None:
            machine_id = fencing.machine_id
            life.host.end(machine_id, "STOPPED", fence=fencing.fence, request_id=fencing.request_id)
            life.host.remove(machine_id, fencing.fence, fencing.request_id)
            life.foreign.discard(machine_id)

        await self._act(life, "delete", fencing, act)
        return pb.DeleteMachineResponse()

    async def QuiesceMachine(
        self, request: pb.QuiesceMachineRequest, _context: Any
    ) -> pb.QuiesceMachineResponse:
        life = self._life()
        # Whoever has the lock has waited for all that was in flight.
        machine = await self._act(life, "quiesce", request.fencing, lambda: None)
        return pb.QuiesceMachineResponse(machine=machine)

    async def GetMachine(self, request: pb.GetMachineRequest, _context: Any) -> pb.GetMachineResponse:
        life = self._life()
        machine_id = convert.machine_id_of(request.machine_id)
        await life.faults.reach("get.before", machine_id)
        if request.fence:
            await life.raise_fence(machine_id, request.fence)
        await life.faults.reach("get.after", machine_id)
        return pb.GetMachineResponse(machine=life.seen(machine_id))

    async def ListMachines(self, _request: pb.ListMachinesRequest, _context: Any) -> pb.ListMachinesResponse:
        life = self._life()
        return pb.ListMachinesResponse(machines=[life.seen(machine_id) for machine_id in life.host.machines])

    async def WatchMachines(
        self, _request: pb.WatchMachinesRequest, _context: Any
    ) -> AsyncIterator[pb.WatchMachinesResponse]:
        life = self._life()
        await life.faults.reach("watch.before", "")
        complete = False
        async for machine in life.watch():
            if machine is not None:
                yield pb.WatchMachinesResponse(machine=machine)
            elif complete:
                yield pb.WatchMachinesResponse()
            else:
                complete = True
                yield pb.WatchMachinesResponse(snapshot_complete=pb.SnapshotComplete())
                yield pb.WatchMachinesResponse(node=self._node())

    async def ReadMachineConsole(
        self, request: pb.ReadMachineConsoleRequest, _context: Any
    ) -> AsyncIterator[pb.ReadMachineConsoleResponse]:
        life, machine_id = self._life(), convert.machine_id_of(request.machine_id)
        machine = _known(life, machine_id)
        console = _CONSOLE if machine.incarnation else b""
        begin = max(0, len(console) + request.offset) if request.offset < 0 else request.offset
        end = begin + request.length if request.length else len(console)
        piece = pb.ReadMachineConsoleResponse(
            chunk=console[begin:end], offset=begin, total_bytes=len(console)
        )
        if request.timestamps:
            piece.times.add(end=end, time=machine.start_time)
        yield piece
        if request.follow and console and not request.length:
            # Its guests say nothing more; the log is gone with the machine.
            async for _ in life.watch():
                if life.host.find(machine_id) is None:
                    return
                yield pb.ReadMachineConsoleResponse(offset=end, total_bytes=len(console))

    async def ReadMachineEvidence(
        self, request: pb.ReadMachineEvidenceRequest, _context: Any
    ) -> AsyncIterator[pb.ReadMachineEvidenceResponse]:
        machine = self._life().host.find(convert.machine_id_of(request.machine_id))
        if machine is not None and machine.incarnation:
            argv = json.dumps(["qemu-system-x86_64", "-uuid", machine.machine_id])
            yield pb.ReadMachineEvidenceResponse(name="qemu-argv.json", content=argv.encode())
            yield pb.ReadMachineEvidenceResponse(name="console.log", content=_CONSOLE)

    async def ExecMachine(self, request: pb.ExecMachineRequest, _context: Any) -> pb.ExecMachineResponse:
        life = self._life()
        if not request.argv or not request.argv[0]:
            raise SpecInvalidError((SpecFault("/argv", "names no program."),))
        machine = _running(life, convert.machine_id_of(request.machine_id))
        if machine.run_state != "running":
            raise MachineStateError(machine.machine_id, machine.run_state, "resume it first")
        match tuple(request.argv):
            case ("/bin/echo", *words):
                return pb.ExecMachineResponse(stdout=(" ".join(words) + "\n").encode())
            case ("/bin/cat", "/proc/sys/kernel/random/boot_id"):
                return pb.ExecMachineResponse(stdout=f"{_boot_id(life, machine)}\n".encode())
            case (program, *_):
                raise GuestProgramNotFoundError(program)
        raise AssertionError("every argv has a first word")

    async def _act(self, life: Life, call: str, fencing: pb.Fencing, act: Callable[[], None]) -> pb.Machine:
        machine_id = convert.machine_id_of(fencing.machine_id)

        async def body(_emit: Emit) -> None:
            await life.faults.reach(f"{call}.before", machine_id)
            act()
            await life.faults.reach(f"{call}.after", machine_id)

        async for _ in life.perform(call, fencing, body):
            pass
        return life.seen(machine_id)


class FakeHostServicer(runner_pb2_grpc.HostServiceServicer):
    """`HostService`."""

    def __init__(self, life: Callable[[], Life], node: Callable[[], host_pb2.Node]) -> None:
        self._life = life
        self._node = node

    async def GetHost(self, _request: pb.GetHostRequest, _context: Any) -> pb.GetHostResponse:
        dependencies = [host_pb2.Dependency(name="vm-host", up=True)]
        return pb.GetHostResponse(node=self._node(), dependencies=dependencies)

    async def ListHostLeaks(
        self, _request: pb.ListHostLeaksRequest, _context: Any
    ) -> pb.ListHostLeaksResponse:
        host = self._life().host
        left = sorted(host.directories - host.machines.keys())
        return pb.ListHostLeaksResponse(leaks=[host_pb2.Leak(kind="directory", name=name) for name in left])

    async def ListUnclaimedMachines(
        self, request: pb.ListUnclaimedMachinesRequest, _context: Any
    ) -> pb.ListUnclaimedMachinesResponse:
        claimed = set(request.claimed_ids)
        return pb.ListUnclaimedMachinesResponse(
            machines=[
                pb.UnclaimedMachine(
                    directory=machine.machine_id,
                    machine=machine,
                    disk_bytes=4096,
                    running=machine.phase == _ACTIVE,
                )
                for machine in self._life().all()
                if machine.machine_id not in claimed
            ]
        )

    async def RunHostDoctor(
        self, _request: pb.RunHostDoctorRequest, _context: Any
    ) -> pb.RunHostDoctorResponse:
        check = host_pb2.Check(name="vm-host", status=host_pb2.CHECK_STATUS_PASS, detail="It is a fake.")
        return pb.RunHostDoctorResponse(checks=[check])


async def _prepare(life: Life, fencing: pb.Fencing, spec: pb.MachineSpec, emit: Emit) -> None:
    machine_id, host = fencing.machine_id, life.host
    check_spec(convert.spec_of(spec))
    _require_ports(life, machine_id, spec)
    before = host.find(machine_id)
    if before is None:
        host.make(machine_id, fencing.fence, fencing.request_id)
        await life.faults.reach("prepare.half", machine_id)
        host.record(machine_id, spec)
        life.foreign.discard(machine_id)
    elif before.phase == _ACTIVE:
        if any(getattr(before.spec, name) != getattr(spec, name) for name in _FIXED):
            raise MachineStateError(machine_id, "running", "stop it first to change its hardware")
    elif before.spec.image != spec.image:
        raise MachineStateError(machine_id, "prepared", "its image cannot be changed")
    emit(pb.Transfer(done=1, total=2, unit="bytes"))
    await asyncio.sleep(0)
    host.prepare(machine_id, spec, fencing.fence, fencing.request_id)


def _move(life: Life, fencing: pb.Fencing, goal: str) -> None:
    machine = _running(life, fencing.machine_id)
    if machine.run_state != goal:
        life.host.run_state(fencing.machine_id, goal, fencing.fence, fencing.request_id)


def _known(life: Life, machine_id: str) -> pb.Machine:
    machine = life.host.find(machine_id)
    if machine is None:
        raise MachineNotFoundError(machine_id)
    return machine


def _running(life: Life, machine_id: str) -> pb.Machine:
    machine = _known(life, machine_id)
    if machine.phase != _ACTIVE:
        raise MachineStateError(machine_id, "not running", "start it first")
    return machine


def _resolved(spec: pb.MachineSpec) -> pb.MachineSpec:
    resolved = pb.MachineSpec()
    resolved.CopyFrom(spec)
    for nic in resolved.nics:
        if nic.network == "default":
            nic.network = _DEFAULT_NETWORK
    return resolved


def _require_ports(life: Life, machine_id: str, spec: pb.MachineSpec) -> None:
    wanted = [port for nic in spec.nics for port in nic.ports]
    taken = life.host.ports(machine_id) if wanted else set()
    for number, port in enumerate(wanted):
        if (port.host, port.protocol or "tcp") in taken:
            raise PortUnavailableError(f"/ports/{number}/host", port.host, "Another machine publishes it.")


def _require_memory(life: Life, machine_id: str, spec: pb.MachineSpec) -> None:
    found = life.host.find(machine_id)
    own = found.spec.memory_mib if found is not None and found.phase == _ACTIVE else 0
    left = life.host.memory_mib - life.host.used_mib + own
    if spec.memory_mib > left:
        raise HostCapacityError("memory", spec.memory_mib, max(0, left), "MiB")


def _boot_id(life: Life, machine: pb.Machine) -> uuid.UUID:
    boot = f"{machine.incarnation} {life.host.resets.get(machine.machine_id, '')}"
    return uuid.uuid5(uuid.UUID(machine.machine_id), boot)
