"""A runner without processes: the fake vm-host, a QEMU that is a script on the sockets it was passed."""

import asyncio
import hashlib
import json
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from bridge_network_fakes import FakeBridgeNetwork
from existing_bridge_fakes import FakeExistingBridges
from qemu_runner.adapters.vm_host import ChildHandle, ChildRole, Spawned, SpawnRequest, StopRecord
from qemu_runner.app import running_core
from qemu_runner.domain.accelerator import AcceleratorMode
from qemu_runner.domain.boot import ReachedPhase
from qemu_runner.domain.default_network import DefaultNetwork
from qemu_runner.domain.fencing import Fencing
from qemu_runner.domain.machine import DiskFormat, Image, MachineId, MachineSpec, Seed
from qemu_runner.domain.observation import Observation
from qemu_runner.domain.progress import Part
from qemu_runner.domain.record import MachineRecord, Run
from qemu_runner.errors import ImageNotFoundError, ImageStoreUnavailableError
from qemu_runner.ports import BlobInfo
from qemu_runner.service.actions import Body, Emit
from qemu_runner.service.machines import Machine
from qemu_runner.service.vm_hosts import VmHostState
from qemu_runner.servicer import Services
from qemu_runner.settings import Configuration
from qemu_runner.user_network import PasstNetwork, SlirpNetwork, UserBackend
from user_network_fakes import FakeBinding, FakeGuard, FakeHost, FakeNamespace, FakeProbe
from vm_host_fake import OFFER, FakeVmHost, FakeVmHostClient

DEADLINE_S = 5.0
IMAGE_BYTES = b"not really a disk" * 100
DIGEST = f"sha256:{hashlib.sha256(IMAGE_BYTES).hexdigest()}"
OTHER_BYTES = b"another disk"
OTHER_DIGEST = f"sha256:{hashlib.sha256(OTHER_BYTES).hexdigest()}"
SPEC = MachineSpec(
    name="web-1",
    arch="x86_64",
    cpus=1,
    memory_mib=256,
    disk_bytes=2**20,
    image=Image(DIGEST, DiskFormat.QCOW2, 2**20),
    cluster_id="tests",
)


class FakeBlobs:
    """An image store in memory; `away` breaks it off after the first piece."""

    def __init__(self) -> None:
        self.data = IMAGE_BYTES
        self.away = False
        self.reads = 0
        self.gate: asyncio.Event | None = None

    async def read(self, digest: str) -> AsyncIterator[BlobInfo | bytes]:
        self.reads += 1
        if digest == OTHER_DIGEST:
            yield OTHER_BYTES
            return
        if digest != DIGEST:
            raise ImageNotFoundError(digest)
        yield BlobInfo(len(IMAGE_BYTES), DiskFormat.QCOW2)
        yield self.data[:100]
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise ImageStoreUnavailableError("it hung up")
        yield self.data[100:]


class FakeQemu:
    """One process: answers QMP on the listening socket that was passed to it.

    Args:
        host: Where its end is told.
        request: How it was spawned.
    """

    def __init__(self, host: "QemuHost", request: SpawnRequest) -> None:
        self.host = host
        self.handle = request.handle
        self.argv = request.argv
        self.commands: list[str] = []
        self.state = "prelaunch"
        self.uuid = request.argv[request.argv.index("-uuid") + 1]
        self.deaf = host.deaf
        self._listener = socket.socket(fileno=os.dup(request.fds["qmp"]))
        self._listener.setblocking(False)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        # What the guest has read from its serial port; it reads while it is `reading`.
        self.serial = b""
        self.reading = asyncio.Event()
        self.reading.set()
        self._line = socket.socket(fileno=os.dup(request.fds["console"]))
        self._line.setblocking(False)
        self._serial_server: asyncio.Server | None = None

    async def serve(self) -> None:
        self._server = await asyncio.start_unix_server(self._client, sock=self._listener)
        self._serial_server = await asyncio.start_unix_server(self._serial, sock=self._line)

    async def _serial(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take input as QEMU does: to its end, then close; what the guest says meanwhile goes out too."""
        writer.write(b"also in the log")
        await self.reading.wait()
        while data := await reader.read(16):
            self.serial += data
        writer.close()

    def event(self, name: str, **data: object) -> None:
        stamp = {"seconds": 0, "microseconds": 0}
        for writer in self._writers:
            _send(writer, {"event": name, "data": data, "timestamp": stamp})

    def hang_up(self) -> None:
        """Close the monitor's connection and live on."""
        for writer in list(self._writers):
            writer.close()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._serial_server is not None:
            self._serial_server.close()
        self._listener.close()
        self._line.close()
        self.hang_up()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version = {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}
        _send(writer, {"QMP": {"version": version, "capabilities": []}})
        self._writers.add(writer)
        try:
            async for command in _commands(reader):
                self.commands.append(command["execute"])
                named = {"id": command["id"]} if "id" in command else {}
                _send(writer, {"return": self._answer(command), **named})
                if command["execute"] == "quit" and not self.deaf:
                    self.host.end(self.handle, code=0)
                if command["execute"] == "system_powerdown" and self.host.obeys:
                    self.event("SHUTDOWN", guest=True, reason="guest-shutdown")
                    self.host.end(self.handle, code=0)
        except ConnectionError:
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, command: dict[str, Any]) -> object:
        match command["execute"]:
            case "cont":
                self.state = "running"
                self.event("RESUME")
            case "stop":
                self.state = "paused"
            case "query-status":
                return {"status": self.state, "running": self.state == "running"}
            case "query-uuid":
                return {"UUID": self.uuid}
            case "query-chardev":
                return [{"label": "agent", "frontend-open": False, "filename": ""}]
        return {}


class QemuHost(FakeVmHost):
    """The fake vm-host whose QEMUs answer QMP.

    `dies` makes each QEMU end at once with that code; `silent` makes them answer nothing; `obeys` makes
    guests power down when asked; `deaf` makes QEMU ignore `quit`.
    """

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.qemus: dict[ChildHandle, FakeQemu] = {}
        self.dies: int | None = None
        self.silent = False
        self.obeys = True
        self.deaf = False

    def client(self) -> "QemuHostClient":
        return QemuHostClient(self)

    @property
    def qemu(self) -> FakeQemu:
        """The newest one."""
        return list(self.qemus.values())[-1]

    def end(self, handle: ChildHandle, *, code: int | None = None, signal: int | None = None) -> None:
        qemu = self.qemus.get(handle)
        if qemu is not None:
            qemu.close()
        super().end(handle, code=code, signal=signal)

    def die(self) -> None:
        for qemu in self.qemus.values():
            qemu.close()
        super().die()


class QemuHostClient(FakeVmHostClient):
    """A client of it."""

    _host: QemuHost

    async def spawn(self, request: SpawnRequest) -> Spawned:
        spawned = await super().spawn(request)
        host = self._host
        if spawned.created and request.handle.role is ChildRole.QEMU:
            if host.dies is not None:
                if request.stderr_fd is not None:
                    await asyncio.to_thread(os.write, request.stderr_fd, b"qemu: no room at the inn\n")
                host.end(request.handle, code=host.dies)
            else:
                qemu = host.qemus[request.handle] = FakeQemu(host, request)
                if not host.silent:
                    await qemu.serve()
        return spawned


@dataclass
class World:
    """Everything around one runner's core, which can be restarted."""

    directory: Path
    vm_host: QemuHost = field(default_factory=QemuHost)
    second: QemuHost | None = None
    blobs: FakeBlobs = field(default_factory=FakeBlobs)
    guard: FakeGuard = field(default_factory=FakeGuard)
    binding: FakeBinding = field(default_factory=FakeBinding)
    nat: FakeBridgeNetwork = field(default_factory=FakeBridgeNetwork)
    nat_enabled: bool = True
    bridges: FakeExistingBridges = field(default_factory=FakeExistingBridges)
    default_network: DefaultNetwork = DefaultNetwork.AUTO
    user_backend: UserBackend = UserBackend.PASST
    namespace: FakeNamespace = field(default_factory=FakeNamespace)
    phases: list[ReachedPhase] = field(default_factory=list)
    memory_mib: int = 4096
    image_cache_bytes: int = 2**30
    extra_arguments: tuple[str, ...] = ()
    last_words: StopRecord | None = None
    word_within_s: float = 0.0

    @property
    def vm_hosts(self) -> list[QemuHost]:
        """Those that the settings name, in their order."""
        return [self.vm_host] if self.second is None else [self.vm_host, self.second]

    def add_second(self, generation: str, version: str = "10.0.0") -> QemuHost:
        """Name another vm-host in the settings, whose QEMU is newer."""
        self.second = QemuHost()
        self.second.socket_path = self.vm_host.socket_path.with_name("vm-host-b.sock")
        types = ("pc-q35-7.2", "pc-q35-10.0")
        offer = replace(OFFER, version=version, machine_types=types, machine_aliases={"q35": types[-1]})
        self.second.hello = replace(self.second.hello, generation=generation, qemu=(offer,))
        return self.second

    def _door(self, path: Path) -> QemuHostClient:
        (host,) = (host for host in self.vm_hosts if host.socket_path == path)
        return host.client()

    @asynccontextmanager
    async def runner(self) -> AsyncIterator["Runner"]:
        """Run the core; leaving is what a restart of the service is."""
        configuration = Configuration(
            listen=(),
            node="node-1",
            state_dir=self.directory,
            image_store="",
            vm_hosts=tuple(host.socket_path for host in self.vm_hosts),
            accelerator=AcceleratorMode.AUTO,
            uid_base=0,
            uid_count=0,
            user_subnet=IPv4Network("10.77.0.0/16"),
            user_backend=self.user_backend,
            image_cache_bytes=self.image_cache_bytes,
            console_limit_bytes=2**20,
            memory_mib=self.memory_mib,
            cpus=2,
            default_network=self.default_network,
            bridge=None,
            extra_arguments=self.extra_arguments,
        )
        subnet = configuration.user_subnet
        passt = PasstNetwork("passt", subnet, self.guard, FakeProbe(), FakeHost(), self.binding)
        by_slirp = self.user_backend is UserBackend.SLIRP
        async with AsyncExitStack() as stack:
            services, _ = await stack.enter_async_context(
                running_core(
                    configuration,
                    blobs=self.blobs,
                    user_network=SlirpNetwork(subnet, self.namespace) if by_slirp else passt,
                    nat=self.nat if self.nat_enabled else None,
                    bridges=self.bridges,
                    door=self._door,
                    last_words=lambda _path: self.last_words,
                    sink=self._phase,
                    word_within_s=self.word_within_s,
                )
            )
            yield Runner(services)

    def _phase(self, _record: MachineRecord, _run: Run, phase: ReachedPhase) -> None:
        self.phases.append(phase)

    def close(self) -> None:
        for host in self.vm_hosts:
            for qemu in host.qemus.values():
                qemu.close()


@dataclass
class Runner:
    """One life of the service, with the calls that tests make."""

    services: Services
    fence: int = 1

    async def prepare(self, machine_id: MachineId, spec: MachineSpec = SPEC, **fencing: Any) -> Observation:
        async def body(machine: Machine, emit: Emit) -> None:
            await self.services.preparation.prepare(machine, spec, Seed(hostname="web-1"), emit)

        return await self.do("prepare", machine_id, body, abortable=True, **fencing)

    async def start(self, machine_id: MachineId, **fencing: Any) -> Observation:
        async def body(machine: Machine, _emit: Emit) -> None:
            await self.services.starting.start(machine, "")

        return await self.do("start", machine_id, body, **fencing)

    async def running(self, spec: MachineSpec = SPEC) -> MachineId:
        machine_id = new_id()
        await self.prepare(machine_id, spec)
        await self.start(machine_id)
        return machine_id

    async def stop(
        self, machine_id: MachineId, *, force: bool = False, grace_s: float = 5.0, fence: int | None = None
    ) -> list[Part]:
        async def body(machine: Machine, emit: Emit) -> None:
            await self.services.ending.stop(machine, force=force, grace_s=grace_s, emit=emit)

        fencing = Fencing(machine_id, self.fence if fence is None else fence, "")
        return [part async for part in self.services.actions.stream("stop", fencing, body, abortable=True)]

    async def delete(self, machine_id: MachineId, **fencing: Any) -> None:
        await self.do("delete", machine_id, self.services.removal.remove, **fencing)

    async def do(
        self,
        kind: str,
        machine_id: MachineId,
        body: Body,
        *,
        fence: int | None = None,
        request_id: str = "",
        abortable: bool = False,
    ) -> Observation:
        fencing = Fencing(machine_id, self.fence if fence is None else fence, request_id)
        return await self.services.actions.perform(kind, fencing, body, abortable=abortable)

    def seen(self, machine_id: MachineId) -> Observation:
        machine = self.services.machines.find(machine_id)
        if machine is None:
            return self.services.machines.absent(machine_id)
        return self.services.machines.observation(machine)

    async def until_vm_host(self, host: QemuHost, *, there: bool = True) -> None:
        """Wait until a vm-host answers, or does not any more."""
        async with asyncio.timeout(DEADLINE_S):
            async for _ in self.services.machines.watch():
                views = (await self.services.host.node()).vm_hosts
                answering = {view.name for view in views if view.state is not VmHostState.UNREACHABLE}
                if (host.socket_path.stem in answering) is there:
                    return

    async def until(self, machine_id: MachineId, condition: Callable[[Observation], bool]) -> Observation:
        """Wait for an observation by the watch that the controller uses."""
        async with asyncio.timeout(DEADLINE_S):
            async for notice in self.services.machines.watch():
                if isinstance(notice, Observation) and notice.machine_id == machine_id and condition(notice):
                    return notice
        raise AssertionError("the watch ended")


def new_id() -> MachineId:
    return MachineId(str(uuid.uuid4()))


def with_disk(size_bytes: int) -> MachineSpec:
    return replace(SPEC, disk_bytes=size_bytes)


async def _commands(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Yield commands, which the client sends without any separator."""
    decoder, pending = json.JSONDecoder(), ""
    while chunk := await reader.read(65_536):
        pending += chunk.decode()
        while pending := pending.lstrip():
            try:
                command, end = decoder.raw_decode(pending)
            except ValueError:
                break
            pending = pending[end:]
            yield command


def _send(writer: asyncio.StreamWriter, document: object) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(document).encode() + b"\r\n")
