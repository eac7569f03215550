"""A real vm-host and a real runner as processes, an image store that serves one file: for the real tests."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from qcontroller.image.v1 import internal_pb2, internal_pb2_grpc
from qcontroller.runner.v1 import runner_pb2, runner_pb2_grpc
from servicekit.channel import grpc_channel
from vm_host_process import remove_cgroups

CHECKOUT = Path(__file__).resolve().parents[3]
TINY = CHECKOUT / ".cache/guests/qcontroller-tiny-amd64.qcow2"
BUILD = CHECKOUT / "packer/guests/tiny/build"
DEADLINE_S = 60.0
UID_BASE = 64_500
VIRTUAL_SIZE = 256 * 2**20


class BlobServicer(internal_pb2_grpc.BlobServiceServicer):
    """Serves one file as the blob of its own digest."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.reads = 0

    async def ReadBlob(  # noqa: N802 - the contract's name
        self, request: internal_pb2.ReadBlobRequest, context: Any
    ) -> AsyncIterator[internal_pb2.ReadBlobResponse]:
        self.reads += 1
        if request.stored_digest != self.digest:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such blob")
        yield internal_pb2.ReadBlobResponse(size_bytes=len(self.data), format="qcow2")
        for offset in range(0, len(self.data), 2**20):
            yield internal_pb2.ReadBlobResponse(chunk=self.data[offset : offset + 2**20])


class RunnerStack:
    """The processes and the calls that tests make."""

    def __init__(
        self,
        directory: Path,
        blobs: BlobServicer,
        vm_host_settings: dict[str, object],
        enter: Sequence[str] = (),
    ) -> None:
        self._enter = enter
        self.directory = directory
        self.blobs = blobs
        self.state_dir = directory / "runner"
        self.target = f"unix:{directory}/runner.sock"
        self.vm_host: asyncio.subprocess.Process
        self.runner: asyncio.subprocess.Process
        self.channel: grpc.aio.Channel | None = None
        self.machines: Any = None
        self.host: Any = None
        self.guests: Any = None
        self.fence = 1
        self._vm_host_settings = vm_host_settings

    async def start_vm_host(self) -> None:
        config = self.directory / "vm-host.json"
        settings = {
            "socketPath": str(self.directory / "vm-host.sock"),
            "allowedPrograms": ["qemu-system-x86_64", "qemu-system-aarch64", "passt"],
            "stopGrace": "20s",
            **self._vm_host_settings,
        }
        config.write_text(json.dumps(settings))
        self.vm_host = await self._spawn("vm_host", config)

    async def start_runner(self, **settings: object) -> None:
        config = self.directory / "runner.json"
        document = {
            "listen": [self.target],
            "node": "node-1",
            "stateDir": str(self.state_dir),
            "imageStore": f"unix:{self.directory}/images.sock",
            "vmHosts": [str(self.directory / "vm-host.sock")],
            "accelerator": "tcg",
            "uidBase": UID_BASE,
            "uidCount": 100,
            "memoryMib": 4096,
            **settings,
        }
        config.write_text(json.dumps(document))
        self.runner = await self._spawn("qemu_runner", config)

    async def kill(self, process: asyncio.subprocess.Process, number: int = signal.SIGKILL) -> None:
        process.send_signal(number)
        await process.wait()
        if process is self.runner and self.channel is not None:
            # A call on a connection that has not heard of it breaks off, instead of waiting for the next one.
            async with asyncio.timeout(DEADLINE_S):
                if self.channel.get_state() is grpc.ChannelConnectivity.READY:
                    await self.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

    async def _spawn(self, module: str, config: Path) -> asyncio.subprocess.Process:
        with (self.directory / f"{module}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(*self._enter, sys.executable, "-m", module, "--config", str(config)),
                stderr=log,
                env={key: value for key, value in os.environ.items() if not key.startswith("QC_")},
            )

    def fencing(self, machine_id: str, fence: int | None = None, request_id: str = "") -> runner_pb2.Fencing:
        return runner_pb2.Fencing(
            machine_id=machine_id,
            fence=self.fence if fence is None else fence,
            request_id=request_id or uuid.uuid4().hex,
        )

    async def prepare(self, machine_id: str, spec: runner_pb2.MachineSpec) -> runner_pb2.Machine:
        request = runner_pb2.PrepareMachineRequest(fencing=self.fencing(machine_id), spec=spec)
        return await _last(self.machines.PrepareMachine(request, timeout=DEADLINE_S, wait_for_ready=True))

    async def start(self, machine_id: str) -> runner_pb2.Machine:
        request = runner_pb2.StartMachineRequest(fencing=self.fencing(machine_id))
        response = await self.machines.StartMachine(request, timeout=DEADLINE_S, wait_for_ready=True)
        machine: runner_pb2.Machine = response.machine
        return machine

    async def stop(
        self, machine_id: str, *, force: bool = False, grace_s: float = 30
    ) -> tuple[list[int], runner_pb2.Machine]:
        request = runner_pb2.StopMachineRequest(
            fencing=self.fencing(machine_id), force=force, grace_ms=int(grace_s * 1000)
        )
        parts = [part async for part in self.machines.StopMachine(request, timeout=DEADLINE_S)]
        return [part.step for part in parts[:-1]], parts[-1].machine

    async def delete(self, machine_id: str) -> None:
        request = runner_pb2.DeleteMachineRequest(fencing=self.fencing(machine_id))
        await self.machines.DeleteMachine(request, timeout=DEADLINE_S, wait_for_ready=True)

    async def get(self, machine_id: str) -> runner_pb2.Machine:
        request = runner_pb2.GetMachineRequest(machine_id=machine_id)
        response = await self.machines.GetMachine(request, timeout=DEADLINE_S, wait_for_ready=True)
        machine: runner_pb2.Machine = response.machine
        return machine

    async def execute(
        self, machine_id: str, *argv: str, timeout_s: float = 10
    ) -> runner_pb2.ExecMachineResponse:
        request = runner_pb2.ExecMachineRequest(
            machine_id=machine_id, argv=argv, timeout_ms=int(timeout_s * 1000)
        )
        response: runner_pb2.ExecMachineResponse = await self.machines.ExecMachine(
            request, timeout=DEADLINE_S
        )
        return response

    async def console(self, machine_id: str, offset: int = 0) -> str:
        request = runner_pb2.ReadMachineConsoleRequest(machine_id=machine_id, offset=offset)
        parts = [part.chunk async for part in self.machines.ReadMachineConsole(request, timeout=DEADLINE_S)]
        return b"".join(parts).decode(errors="replace")

    async def until(
        self,
        machine_id: str,
        condition: Callable[[runner_pb2.Machine], bool],
        *,
        within_s: float = DEADLINE_S,
    ) -> runner_pb2.Machine:
        """Wait for an observation by the watch that the controller uses."""
        request = runner_pb2.WatchMachinesRequest()
        async with asyncio.timeout(within_s):
            async for notice in self.machines.WatchMachines(request, wait_for_ready=True):
                if notice.machine.machine_id == machine_id and condition(notice.machine):
                    machine: runner_pb2.Machine = notice.machine
                    return machine
        raise AssertionError("the watch ended")

    async def until_text(self, path: Path, text: str, *, times: int = 1) -> None:
        """Wait until a file holds `text` so many times; files announce nothing."""
        async with asyncio.timeout(DEADLINE_S):
            while (await asyncio.to_thread(path.read_bytes)).count(text.encode()) < times:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def until_log(self, module: str, text: str) -> None:
        """Wait until a service has logged `text`."""
        await self.until_text(self.directory / f"{module}.log", text)

    async def until_agent(self, machine_id: str, *, within_s: float = DEADLINE_S) -> runner_pb2.Machine:
        return await self.until(
            machine_id,
            lambda machine: machine.agent.info.os.id != "" and machine.agent.connected,
            within_s=within_s,
        )

    def spec(self, **changes: object) -> runner_pb2.MachineSpec:
        values: dict[str, Any] = {
            "name": "tiny-1",
            "arch": "x86_64",
            "cpus": 1,
            "memory_mib": 256,
            "disk_bytes": VIRTUAL_SIZE,
            "image": runner_pb2.MachineImage(
                stored_digest=self.blobs.digest, format="qcow2", virtual_size_bytes=VIRTUAL_SIZE
            ),
            "seed": runner_pb2.MachineSeed(hostname="tiny-1"),
            "cluster_id": "tests",
            **changes,
        }
        return runner_pb2.MachineSpec(**values)

    def log(self, module: str) -> str:
        return (self.directory / f"{module}.log").read_text()


@asynccontextmanager
async def running_stack(
    directory: Path, *, enter: Sequence[str] = (), **vm_host_settings: object
) -> AsyncIterator[RunnerStack]:
    """Run the stack until the block ends; nothing of it outlives the block.

    `enter` is put before the commands of both processes: words that enter a namespace.
    """
    blobs = BlobServicer(await asyncio.to_thread(tiny_guest))
    images = grpc.aio.server()
    internal_pb2_grpc.add_BlobServiceServicer_to_server(blobs, images)
    images.add_insecure_port(f"unix:{directory}/images.sock")
    await images.start()
    stack = RunnerStack(directory, blobs, vm_host_settings, enter)
    await stack.start_vm_host()
    try:
        await stack.start_runner()
        try:
            async with grpc_channel(stack.target) as channel:
                stack.channel = channel
                stack.machines = runner_pb2_grpc.MachineServiceStub(channel)
                stack.host = runner_pb2_grpc.HostServiceStub(channel)
                stack.guests = runner_pb2_grpc.GuestServiceStub(channel)
                yield stack
        finally:
            await _end(stack.runner, signal.SIGTERM)
    finally:
        await _end(stack.vm_host, signal.SIGKILL)
        await asyncio.to_thread(remove_cgroups, directory / "vm-host.sock")
        await images.stop(None)


def tiny_guest() -> bytes:
    """Return the small guest's image; it is built if it is not there."""
    if not TINY.exists():
        subprocess.run([str(BUILD)], check=True, stdout=subprocess.DEVNULL)
    return TINY.read_bytes()


async def _end(process: asyncio.subprocess.Process, number: int) -> None:
    if process.returncode is None:
        process.send_signal(number)
        await process.wait()


async def _last(call: Any) -> runner_pb2.Machine:
    parts = [part async for part in call]
    machine: runner_pb2.Machine = parts[-1].machine
    return machine
