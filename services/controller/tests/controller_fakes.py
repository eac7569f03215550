"""A runner and an image store in memory, and the service before them on a real socket."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller.app import serve
from controller.database import Database
from controller.domain.console import ConsoleChunk, ConsoleTime, ConsoleWish
from controller.domain.image_source import FetchWish
from controller.domain.instance import InstanceImage
from controller.domain.machine import (
    Address,
    ExecRequest,
    ExecResult,
    Machine,
    MachineExit,
    MachineNic,
    MachinePhase,
    MachinePlan,
    MachineSpec,
    NicView,
    absent,
)
from controller.domain.node import Check, CheckStatus, Dependency, Host, Leak, Node, NodeState
from controller.domain.orphan import Unclaimed
from controller.errors import (
    ImageDigestMismatch,
    ImageNotFound,
    PeerAway,
    PeerRefused,
    Refusal,
    StaleFence,
)
from controller.instances.sealing import bring_in_step
from controller.operations import Clock
from controller.ports import EvidencePart, Fencing, ImageEvent, SnapshotComplete, StoreImage
from controller.records.keyring import Keyring
from controller.records.sealed_rows import KEYRING
from controller.settings import Settings
from controller_console_fakes import FakeConsoles
from controller_guest_fakes import FakeGuests
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2
from qcontroller.controller.v1.host_pb2_grpc import EventServiceStub, NodeServiceStub
from qcontroller.controller.v1.image_import_pb2_grpc import ImageImportServiceStub
from qcontroller.controller.v1.instance_pb2_grpc import InstanceServiceStub
from qcontroller.controller.v1.operation_pb2_grpc import OperationServiceStub

DIGEST = "sha256:" + "ab" * 32
CONSOLE_TIME = datetime(2026, 1, 1, tzinfo=UTC)
SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED
NODE = Node(
    name="node-1",
    state=NodeState.READY,
    arch="x86_64",
    qemu_version="7.2.22",
    accelerator="tcg",
    speed_factor=0.5,
    cpus_total=2,
    memory_total_mib=65536,
    disk_total_mib=1 << 20,
)


def refusal(reason: str, code: str = "FAILED_PRECONDITION") -> PeerRefused:
    return PeerRefused(Refusal(code, reason, f"{reason} happened."))


def _nic(nic: MachineNic, before: tuple[NicView, ...]) -> NicView:
    """A NIC keeps what it had; on qc0 it has an address from the first prepare on."""
    known = {view.mac: view.addresses for view in before}
    reserved = (Address("10.87.0.16", "ipv4", "reserved"),) if nic.network == "qc0" else ()
    return NicView(nic.network, nic.mac, known.get(nic.mac, reserved), nic.ports)


@dataclass
class FakeRunner:
    """Machines as values. `faults` are raised by the next call of that name; `gates` hold a call up.

    The gate "spawned" holds a start up once its process is there; `after` is called when a call has acted;
    `snapshot` is what a watch begins with instead of the machines there are.

    A machine's directory is made before its record: one that was broken off in between is in `directories`
    alone, and no observation tells of it. Agents connect when a test reports it; with `agents` they do by
    themselves. It passes the contract of every runner (tests/chaos).
    """

    node: str = "node-1"
    machines: dict[str, Machine] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    specs: dict[str, MachineSpec] = field(default_factory=dict)
    set_aside: tuple[str, ...] = ()
    fences: dict[str, int] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    reached: dict[str, asyncio.Event] = field(default_factory=dict)
    away: bool = False
    console: bytes = b"login: "
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    watchers: set["asyncio.Queue[Any]"] = field(default_factory=set)
    watched: asyncio.Event = field(default_factory=asyncio.Event)
    after: dict[str, Callable[[], None]] = field(default_factory=dict)
    snapshot: dict[str, Machine] | None = None
    revision: int = 0
    default: str = "user"
    unreadable: dict[str, str] = field(default_factory=dict)
    form: Node = NODE
    agents: bool = False
    left: tuple[Leak, ...] = (Leak("tap", "qc1", "", None),)
    resets: dict[str, list[str]] = field(default_factory=dict)
    guests: "FakeGuests" = field(init=False)
    consoles: "FakeConsoles" = field(init=False)

    def __post_init__(self) -> None:
        self.guests = FakeGuests(self._enter)
        self.consoles = FakeConsoles(self._enter)

    def at(self, call: str) -> asyncio.Event:
        """Hold up calls of that name; the result is set when one has arrived."""
        self.gates[call] = asyncio.Event()
        return self.reached.setdefault(call, asyncio.Event())

    def report(self, machine_id: str, **changes: Any) -> None:
        """Change a machine from outside and tell the watchers."""
        self._set(replace(self.machines[machine_id], **changes))

    def forget(self, machine_id: str) -> None:
        """Lose a machine with its files, and tell the watchers."""
        self.machines.pop(machine_id)
        self._tell(replace(self._seen(machine_id), revision=self._next()))

    def break_off(self) -> None:
        """Be away: streams end and calls fail."""
        self.away = True
        self.grown.set()
        for queue in self.watchers:
            queue.put_nowait(PeerAway("RUNNER_UNAVAILABLE", "gone"))

    async def plan(
        self, machine_id: str, spec: MachineSpec, *, network_only: bool = False, reserve: bool = False
    ) -> MachinePlan:
        await self._enter("plan")
        if spec.memory_mib > self.form.memory_total_mib:
            raise refusal("HOST_CAPACITY_EXHAUSTED")
        if spec.disk_bytes < spec.image.virtual_size_bytes:
            raise refusal("FIELD_INVALID")
        networks = tuple(self.default if nic.network == "default" else nic.network for nic in spec.nics)
        addresses = self.set_aside if reserve else ()
        return MachinePlan(("qemu-system-x86_64", "-uuid", machine_id), "tcg", (), networks, addresses)

    async def prepare(
        self, fencing: Fencing, spec: MachineSpec, progress: Callable[[int, int, str], None]
    ) -> Machine:
        async with self._act("prepare", fencing):
            progress(1, 2, "bytes")
            before = self.machines.get(fencing.machine_id, absent(fencing.machine_id))
            self._refuse_another(before, spec)
            self.specs[fencing.machine_id] = spec
            kept = before.phase in {MachinePhase.EXITED, MachinePhase.ACTIVE}
            phase = before.phase if kept else MachinePhase.PREPARED
            nics = tuple(_nic(nic, before.nics) for nic in spec.nics)
            return self._set(
                replace(before, phase=phase, record=spec.record, nics=nics, cluster_id=spec.cluster_id)
            )

    async def start(self, fencing: Fencing) -> Machine:
        async with self._act("start", fencing):
            before = self._there(fencing)
            if before.phase is MachinePhase.ACTIVE:
                return self._set(replace(before, run_state="running"))
            nics = tuple(
                replace(nic, addresses=nic.addresses or (Address("10.77.0.15", "ipv4", "user"),))
                for nic in before.nics
            )
            started = self._set(
                replace(
                    before,
                    phase=MachinePhase.ACTIVE,
                    run_state="running",
                    incarnation=before.incarnation + 1,
                    boots=before.boots + 1,
                    panicked=False,
                    io_error="",
                    exit=None,
                    accelerator="tcg",
                    nics=nics,
                    start_time=datetime.now(UTC),
                    boot_time=datetime.now(UTC),
                    agent_connected=self.agents,
                )
            )
            if "spawned" in self.gates:
                self.reached["spawned"].set()
                await self.gates["spawned"].wait()
            return started

    async def stop(
        self, fencing: Fencing, *, force: bool, grace_s: float, stage: Callable[[str], Awaitable[None]]
    ) -> Machine:
        async with self._act("stop", fencing):
            before = self._there(fencing)
            if before.phase is not MachinePhase.ACTIVE:
                return self._seen(fencing.machine_id)
            await stage("quit" if force else "powerdown")
            return self._set(_ended(before, "STOPPED"))

    async def claim(self, fencing: Fencing, name: str, cluster_id: str, record: str) -> Machine:
        async with self._act("claim", fencing):
            before = self.machines[fencing.machine_id]
            return self._set(replace(before, cluster_id=cluster_id, record=record))

    async def pause(self, fencing: Fencing) -> Machine:
        async with self._act("pause", fencing):
            return self._set(replace(self._active(fencing), run_state="paused"))

    async def resume(self, fencing: Fencing) -> Machine:
        async with self._act("resume", fencing):
            return self._set(replace(self._active(fencing), run_state="running"))

    async def reset(self, fencing: Fencing) -> Machine:
        async with self._act("reset", fencing):
            before = self._active(fencing)
            done = self.resets.setdefault(fencing.machine_id, [])
            if fencing.request_id in done:
                return before
            done.append(fencing.request_id)
            return self._set(replace(before, agent_connected=self.agents))

    async def delete(self, fencing: Fencing) -> None:
        async with self._act("delete", fencing):
            self.directories.discard(fencing.machine_id)
            self.specs.pop(fencing.machine_id, None)
            self.resets.pop(fencing.machine_id, None)
            self.grown.set()
            if self.machines.pop(fencing.machine_id, None) is not None:
                self._tell(replace(self._seen(fencing.machine_id), revision=self._next()))

    async def quiesce(self, fencing: Fencing) -> Machine:
        async with self._act("quiesce", fencing):
            return self._seen(fencing.machine_id)

    async def get(self, machine_id: str, *, fence: int = 0, timeout_s: float = 10.0) -> Machine:
        await self._enter("get")
        self._known(machine_id)
        self._compare(machine_id, fence)
        return self._seen(machine_id)

    async def watch(self) -> AsyncIterator[Machine | SnapshotComplete | Node]:
        await self._enter("watch")
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.watchers.add(queue)
        try:
            yield self.form
            told = self.machines if self.snapshot is None else self.snapshot
            for machine in list(told.values()):
                yield machine
            yield SnapshotComplete()
            self.watched.set()
            while True:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.watchers.discard(queue)

    async def read_console(self, machine_id: str, wish: ConsoleWish) -> AsyncGenerator[ConsoleChunk, None]:
        await self._enter("console")
        if machine_id not in self.machines:
            raise refusal("MACHINE_NOT_FOUND")
        begin = max(0, len(self.console) + wish.offset) if wish.offset < 0 else wish.offset
        until = begin + wish.length if wish.length else sys.maxsize
        while True:
            self.grown.clear()
            total = len(self.console)
            chunk = self.console[begin : min(until, total)]
            times = (ConsoleTime(total, CONSOLE_TIME, approximate=False),) if wish.timestamps else ()
            yield ConsoleChunk(chunk, begin, total, 0, times)
            begin += len(chunk)
            if not wish.follow or begin >= until:
                return
            await self.grown.wait()
            if self.away:
                raise PeerAway("RUNNER_UNAVAILABLE", "It has broken off.")
            if machine_id not in self.machines:
                return

    def prints(self, text: bytes) -> None:
        """Have the guests print something more."""
        self.console += text
        self.grown.set()

    async def evidence(self, machine_id: str, trace_id: str) -> AsyncIterator[EvidencePart]:
        await self._enter("evidence")
        if machine_id in self.directories:
            yield EvidencePart("console.log", self.console)
            yield EvidencePart("qemu-argv.json", f'["-uuid", "{machine_id}"]'.encode())
            yield EvidencePart("qmp.jsonl", b'{"command": {"execute": "cont"}}\n')

    async def execute(self, machine_id: str, request: ExecRequest) -> ExecResult:
        await self._enter("execute")
        if self.machines[machine_id].phase is not MachinePhase.ACTIVE:
            raise refusal("MACHINE_STATE_CONFLICT")
        if request.argv == ("/bin/cat", "/proc/sys/kernel/random/boot_id"):
            boot = (self.machines[machine_id].incarnation, len(self.resets.get(machine_id, ())))
            return ExecResult(0, f"{boot}\n".encode(), b"", truncated=False)
        if request.argv == ("/no/such",):
            raise refusal("GUEST_PROGRAM_NOT_FOUND")
        return ExecResult(0, b"out\n", b"", truncated=False)

    async def host(self) -> Host:
        await self._enter("host")
        return Host(self.form, (Dependency("vm-host", up=True, since=None, detail=""),))

    async def leaks(self) -> list[Leak]:
        return list(self.left)

    async def unclaimed(self, claimed: Collection[str]) -> list[Unclaimed]:
        await self._enter("unclaimed")
        return [
            Unclaimed(
                replace(machine, fence=self.fences.get(machine.id, 0)),
                datetime.now(UTC),
                4096,
                self.unreadable.get(machine.id, ""),
                machine.phase is MachinePhase.ACTIVE,
            )
            for machine in self.machines.values()
            if machine.id not in claimed
        ]

    async def doctor(self) -> list[Check]:
        return [Check("tun", CheckStatus.PASS, "fine", "")]

    @asynccontextmanager
    async def _act(self, call: str, fencing: Fencing) -> AsyncIterator[None]:
        await self._enter(call)
        self._known(fencing.machine_id)
        async with self.locks.setdefault(fencing.machine_id, asyncio.Lock()):
            self._compare(fencing.machine_id, fencing.fence)
            if call == "prepare":
                self.directories.add(fencing.machine_id)
            if call in self.gates:
                self.reached[call].set()
                await self.gates[call].wait()
            yield
            if call in self.after:
                self.after.pop(call)()

    async def _enter(self, call: str) -> None:
        if self.away:
            raise PeerAway("RUNNER_UNAVAILABLE", "gone")
        self.calls.append(call)
        if self.faults.get(call):
            raise self.faults[call].pop(0)

    def _compare(self, machine_id: str, fence: int) -> None:
        if 0 < fence < self.fences.get(machine_id, 0):
            raise StaleFence("a higher fence was seen")
        self.fences[machine_id] = max(fence, self.fences.get(machine_id, 0))

    def _known(self, machine_id: str) -> None:
        if "/" in machine_id:
            raise refusal("FIELD_INVALID", "INVALID_ARGUMENT")

    def _there(self, fencing: Fencing) -> Machine:
        found = self.machines.get(fencing.machine_id)
        if found is None:
            raise refusal("MACHINE_NOT_FOUND")
        return found

    def _active(self, fencing: Fencing) -> Machine:
        found = self._there(fencing)
        if found.phase is not MachinePhase.ACTIVE:
            raise refusal("MACHINE_STATE_CONFLICT")
        return found

    def _refuse_another(self, before: Machine, spec: MachineSpec) -> None:
        """An image is for good; the hardware is while a process runs."""
        made = self.specs.get(before.id)
        if made is None or before.phase is MachinePhase.ABSENT:
            return
        hardware = (made.cpus, made.memory_mib) != (spec.cpus, spec.memory_mib)
        if made.image != spec.image or (before.phase is MachinePhase.ACTIVE and hardware):
            raise refusal("MACHINE_STATE_CONFLICT")

    def _seen(self, machine_id: str) -> Machine:
        found = self.machines.get(machine_id, absent(machine_id))
        return replace(found, fence=self.fences.get(machine_id, 0))

    def _set(self, machine: Machine) -> Machine:
        told = replace(machine, revision=self._next(), fence=self.fences.get(machine.id, 0))
        self.machines[machine.id] = told
        self._tell(told)
        return told

    def _next(self) -> int:
        self.revision += 1
        return self.revision

    def _tell(self, item: Any) -> None:
        for queue in self.watchers:
            queue.put_nowait(item)


def _ended(machine: Machine, reason: str) -> Machine:
    return replace(
        machine,
        phase=MachinePhase.EXITED,
        run_state="",
        agent_connected=False,
        exit=MachineExit(reason, f"{reason}.", "qemu: stderr", "last console line"),
    )


def ended(reason: str) -> dict[str, Any]:
    """Return the changes of a machine that ended."""
    return {
        "phase": MachinePhase.EXITED,
        "run_state": "",
        "agent_connected": False,
        "exit": MachineExit(reason, f"{reason}.", "qemu: stderr", "last console line"),
    }


@dataclass
class FakeStore:
    """One image, "tiny" of 64 MiB, what is fetched, and pins.

    Attributes:
        forbidden: What a check of a fetch is refused with.
        failing: What fetches are refused with.
        held: Where a fetch waits until it is let go; None: it does not.
    """

    fetched: dict[str, StoreImage] = field(default_factory=dict)
    fetches: list[FetchWish] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    forbidden: PeerRefused | None = None
    failing: PeerRefused | None = None
    held: asyncio.Event | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    served_mib: int = 64
    pins: dict[str, str] = field(default_factory=dict)
    away: bool = False
    gone: bool = False
    has_agent: bool = True
    events: "asyncio.Queue[ImageEvent]" = field(default_factory=asyncio.Queue)
    cursors: list[str] = field(default_factory=list)

    async def find(self, name: str) -> StoreImage:
        self._there()
        if name in self.fetched:
            return self.fetched[name]
        if name != "tiny" or self.gone:
            raise ImageNotFound(name)
        image = InstanceImage("tiny", DIGEST, DIGEST, "qcow2", 64 << 20)
        return StoreImage(image, "x86_64", has_agent=self.has_agent)

    async def find_by_digest(self, digest: str) -> StoreImage | None:
        self._there()
        there = [*self.fetched.values(), *([] if self.gone else [await self.find("tiny")])]
        return next((image for image in there if image.image.digest == digest), None)

    async def check_fetch(self, wish: FetchWish) -> None:
        self._there()
        if self.forbidden is not None:
            raise self.forbidden

    async def fetch(
        self, wish: FetchWish, progress: Callable[[int, int], None], timeout_s: float
    ) -> StoreImage:
        self._there()
        self.fetches.append(wish)
        progress(1000, 4000)
        self.begun.set()
        if self.held is not None:
            await self.held.wait()
        if self.failing is not None:
            raise self.failing
        image = InstanceImage(wish.name, wish.digest, DIGEST, "qcow2", self.served_mib << 20)
        self.fetched[wish.name] = StoreImage(image, wish.arch or "x86_64", wish.labels)
        return self.fetched[wish.name]

    async def undo_fetch(self, name: str, digest: str, timeout_s: float) -> None:
        self._there()
        self.undone.append(name)
        if name in self.fetched and self.fetched[name].image.digest == digest:
            del self.fetched[name]

    async def pin(
        self, instance_id: str, instance_name: str, image: str, digest: str, timeout_s: float
    ) -> InstanceImage:
        found = (await self.find(image)).image
        if digest and digest != found.digest:
            raise ImageDigestMismatch(image, digest, found.digest)
        self.pins[instance_id] = found.digest
        return found

    async def unpin(self, instance_id: str, timeout_s: float) -> None:
        self._there()
        self.pins.pop(instance_id, None)

    async def ping(self) -> None:
        self._there()

    async def watch(self, cursor: str) -> AsyncIterator[ImageEvent]:
        self._there()
        self.cursors.append(cursor)
        while True:
            yield await self.events.get()

    def _there(self) -> None:
        if self.away:
            raise PeerAway("IMAGE_STORE_UNAVAILABLE", "gone")


class SteppedClock:
    """The system's clocks, which tests move forward: who sleeps wakes when his time has come."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._set_s = 0.0
        self._stepped = asyncio.Event()
        self._asleep: list[float] = []
        self._turned = asyncio.Event()

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ahead_s + self._set_s)

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead_s

    def sleep(self, delay_s: float) -> Coroutine[Any, Any, None]:
        # Counted from the call, not from when the loop comes to it: time may be moved between the two.
        return self._sleep(delay_s, self.monotonic() + delay_s)

    async def until_asleep(self, delay_s: float, *, asleep: bool = True) -> None:
        """Return when somebody sleeps who wanted to for that long, or nobody does any more."""
        while (delay_s in self._asleep) is not asleep:
            self._turned.clear()
            await self._turned.wait()

    async def _sleep(self, delay_s: float, until: float) -> None:
        self._asleep.append(delay_s)
        self._turned.set()
        try:
            await self._sleep_until(until)
        finally:
            self._asleep.remove(delay_s)
            self._turned.set()

    async def _sleep_until(self, until: float) -> None:
        while (left_s := until - self.monotonic()) > 0:
            stepped = self._stepped
            try:
                await asyncio.wait_for(stepped.wait(), left_s)
            except TimeoutError:
                return

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._ahead_s += seconds
        self._stepped.set()
        self._stepped = asyncio.Event()

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock alone, as somebody with `date -s` does."""
        self._set_s += seconds


@dataclass
class Cloud:
    """The service before its fakes, through its public stubs."""

    path: Path
    runner: FakeRunner
    store: FakeStore
    database: Database
    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        self.instances: Any = InstanceServiceStub(self.channel)
        self.operations: Any = OperationServiceStub(self.channel)
        self.events: Any = EventServiceStub(self.channel)
        self.imports: Any = ImageImportServiceStub(self.channel)
        self.nodes: Any = NodeServiceStub(self.channel)

    async def launch(self, name: str = "web-1", *, start: bool = True, **fields: Any) -> pb.Instance:
        request = pb.LaunchInstanceRequest(name=name, image="tiny", start=start, **fields)
        answer = await self.instances.LaunchInstance(request, timeout=10)
        await self.done(answer.mutation)
        return await self.get(name)

    async def get(self, name: str = "web-1") -> pb.Instance:
        instance: pb.Instance = (
            await self.instances.GetInstance(pb.GetInstanceRequest(name=name), timeout=10)
        ).instance
        return instance

    async def verb(self, verb: str, name: str = "web-1", **fields: Any) -> pb.Instance:
        await self.done(await self.ask(verb, name, **fields))
        return await self.get(name)

    async def ask(self, verb: str, name: str = "web-1", **fields: Any) -> pb.Mutation:
        request = getattr(pb, f"{verb}InstanceRequest")(name=name, **fields)
        mutation: pb.Mutation = (
            await getattr(self.instances, f"{verb}Instance")(request, timeout=10)
        ).mutation
        return mutation

    async def done(self, mutation: pb.Mutation) -> operation_pb2.Operation:
        operation = await self.ended(mutation.operation.id)
        assert operation.state == SUCCEEDED, operation
        return operation

    async def ended(self, operation_id: str) -> operation_pb2.Operation:
        request = operation_pb2.WaitOperationRequest(id=operation_id, timeout="10s")
        operation: operation_pb2.Operation = (
            await self.operations.WaitOperation(request, timeout=15)
        ).operation
        return operation

    async def renew(self, name: str = "web-1") -> pb.RenewLeaseResponse:
        answer: pb.RenewLeaseResponse = await self.instances.RenewLease(
            pb.RenewLeaseRequest(name=name), timeout=10
        )
        return answer

    async def gone(self, name: str = "web-1") -> None:
        """Return when there is no such instance any more."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.until(lambda found: False, name)
        assert reason_of(caught.value)[0] == "INSTANCE_NOT_FOUND"

    async def until(self, holds: Callable[[pb.Instance], bool], name: str = "web-1") -> pb.Instance:
        """Follow the event log until the instance is as wanted."""
        async with asyncio.timeout(10):
            stream = self.events.WatchEvents(_now())
            await stream.initial_metadata()
            while not holds(instance := await self.get(name)):
                await anext(stream.__aiter__())
            stream.cancel()
            return instance


def _now() -> Any:
    from qcontroller.controller.v1.host_pb2 import WatchEventsRequest  # noqa: PLC0415 - only here

    return WatchEventsRequest()


@asynccontextmanager
async def running_cloud(
    path: Path,
    runner: FakeRunner | None = None,
    store: FakeStore | None = None,
    clock: Clock | None = None,
    *,
    deadline_s: float = 300.0,
    keys: Keyring | None = None,
    **changed: Any,
) -> AsyncIterator[Cloud]:
    """Run the service on a socket below `path`; `changed` are members of its settings."""
    runner, store = runner or FakeRunner(), store or FakeStore()
    runner.watched.clear()
    settings = Settings(
        listen=(f"unix:{path}/c.sock",),
        database=path / "controller.db",
        image_store="",
        runners={"node-1": "unix:/nowhere"},
        stop_timeout_s=45.0,
        readiness_deadline_s=180.0,
        operation_deadline_s=deadline_s,
        operation_slots=8,
    )
    settings = replace(settings, **changed)
    async with AsyncExitStack() as stack:
        keys = keys or Keyring()
        database = await stack.enter_async_context(Database(settings.database, {KEYRING: keys}))
        await bring_in_step(database, keys)
        await stack.enter_async_context(
            serve(settings, database, store, [runner], CollectorRegistry(), clock)
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(settings.listen[0]))
        if not runner.away:
            await asyncio.wait_for(runner.watched.wait(), 10)
        yield Cloud(path, runner, store, database, channel)


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str]]:
    """Return reason and metadata of an error's ErrorInfo."""
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(raw).details:
        if detail.Unpack(info):
            return info.reason, dict(info.metadata)
    raise AssertionError("an error without ErrorInfo")


def pointers_of(error: grpc.aio.AioRpcError) -> set[str]:
    """Return the fields that a FIELD_INVALID names."""
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    faults = error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(raw).details:
        if detail.Unpack(faults):
            return {violation.field for violation in faults.field_violations}
    return set()
