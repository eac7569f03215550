"""A vm-host without processes, for the runner's unit tests.

`FakeVmHost` is the host; `client()` gives what `VmHostClient` is for the real one. Both pass
`test_vm_host_contract.py`. Beyond the contract a test can end a child (`end`), announce the stop
(`announce_stopping`), kill the host (`die`) and start it again (`restart`).
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from signal import Signals
from typing import Self

from qemu_runner.adapters.vm_host import (
    AcceleratorOffer,
    ChildExit,
    ChildHandle,
    ChildRecord,
    ChildRole,
    ChildSignal,
    ExitReason,
    QemuOffer,
    RefusalCode,
    Spawned,
    SpawnRequest,
    Stopping,
    VmHostHello,
    VmHostRefused,
    VmHostUnavailable,
    WatchEvent,
)

OFFER = QemuOffer(
    arch="x86_64",
    program="qemu-system-x86_64",
    version="7.2.22",
    machine_types=("pc-q35-7.2",),
    machine_aliases={"q35": "pc-q35-7.2"},
    accelerators=(AcceleratorOffer("tcg", usable=True, reason="emulation works everywhere"),),
)


class FakeVmHost:
    """The host: its children and who watches them.

    Args:
        programs: Allowed programs.
        ends_at_once: Exit codes of the command lines that end by themselves; all others run on.
    """

    def __init__(
        self,
        programs: tuple[str, ...] = ("qemu-system-x86_64", "passt"),
        ends_at_once: Mapping[tuple[str, ...], int] | None = None,
    ) -> None:
        self.socket_path = Path("/fake/vm-host.sock")
        self.programs = programs
        self.ends_at_once = dict(ends_at_once or {})
        self.hello = VmHostHello(
            generation="fake",
            start_id=uuid.uuid4().hex,
            boot_id=str(uuid.uuid4()),
            pid=1,
            root=False,
            bounding_set_empty=False,
            stopping=False,
            qemu=(OFFER,),
        )
        self.alive = True
        self.spawned: list[SpawnRequest] = []
        self.signals: list[tuple[ChildHandle, ChildSignal]] = []
        self.children: dict[ChildHandle, ChildRecord] = {}
        self.watchers: list[asyncio.Queue[WatchEvent | None]] = []

    def client(self) -> "FakeVmHostClient":
        """Return a client that is not connected yet."""
        return FakeVmHostClient(self)

    def end(self, handle: ChildHandle, *, code: int | None = None, signal: int | None = None) -> None:
        """Let a child end, and tell those who watch."""
        child = self.children[handle]
        reason = ExitReason.HOST_SHUTDOWN if self.hello.stopping else ExitReason.EXITED
        ended = ChildExit(handle, code, signal, reason, child.started_at, datetime.now(UTC))
        # Ended children stand in the order of their ends, as a new watch reports them.
        del self.children[handle]
        self.children[handle] = replace(child, exit=ended)
        self._tell(ended)

    def announce_stopping(self) -> None:
        """Begin to stop: nothing is spawned any more."""
        self.hello = replace(self.hello, stopping=True)
        self._tell(Stopping(self.hello.start_id))

    def stop(self) -> None:
        """Stop in good order: announce, end every child, go."""
        self.announce_stopping()
        for child in [child for child in self.children.values() if child.exit is None]:
            self.end(child.handle, code=0)
        self._go()

    def die(self) -> None:
        """Be killed: children and connections end unannounced."""
        self.children.clear()
        self._go()

    def restart(self) -> None:
        """Come back as another process."""
        self.alive = True
        self.hello = replace(self.hello, start_id=uuid.uuid4().hex, stopping=False)

    def _go(self) -> None:
        self.alive = False
        for queue in self.watchers:
            queue.put_nowait(None)
        self.watchers.clear()

    def _tell(self, event: WatchEvent) -> None:
        for queue in self.watchers:
            queue.put_nowait(event)


class FakeVmHostClient:
    """What `VmHostClient` is for the real vm-host."""

    def __init__(self, host: FakeVmHost) -> None:
        self.socket_path = host.socket_path
        self._host = host
        self._hello = host.hello
        self._connected = False

    async def __aenter__(self) -> Self:
        self._connected = True
        self._hello = self._host.hello
        await self._check()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._connected = False

    @property
    def hello(self) -> VmHostHello:
        return self._hello

    async def refresh_hello(self) -> VmHostHello:
        await self._check()
        self._hello = self._host.hello
        return self._hello

    async def spawn(self, request: SpawnRequest) -> Spawned:
        await self._check()
        host = self._host
        existing = host.children.get(request.handle)
        if existing is not None:
            return Spawned(existing, created=False)
        if host.hello.stopping:
            raise VmHostRefused("spawn", RefusalCode.STOPPING, "vm-host is stopping")
        for child in host.children.values():
            same = (child.handle.machine_id, child.handle.role) == (
                request.handle.machine_id,
                request.handle.role,
            )
            if same and child.exit is None:
                raise VmHostRefused("spawn", RefusalCode.INCARNATION_CONFLICT, "another incarnation lives")
        if request.argv[0] not in host.programs:
            raise VmHostRefused("spawn", RefusalCode.PROGRAM_NOT_ALLOWED, request.argv[0])
        host.spawned.append(request)
        record = ChildRecord(request.handle, 1000 + len(host.spawned), datetime.now(UTC))
        host.children[request.handle] = record
        code = host.ends_at_once.get(request.argv)
        if code is not None:
            host.end(request.handle, code=code)
        return Spawned(record, created=True)

    async def signal(self, handle: ChildHandle, which: ChildSignal) -> None:
        await self._check()
        child = self._host.children.get(handle)
        if child is None:
            raise VmHostRefused("signal", RefusalCode.HANDLE_UNKNOWN, "no such child")
        if child.exit is not None:
            raise VmHostRefused("signal", RefusalCode.HANDLE_EXITED, "it has ended")
        self._host.signals.append((handle, which))
        self._host.end(handle, signal=Signals[f"SIG{which}"].value)
        passt = replace(handle, role=ChildRole.PASST)
        leftover = self._host.children.get(passt)
        if handle.role is ChildRole.QEMU and leftover is not None and leftover.exit is None:
            self._host.end(passt, signal=Signals.SIGKILL.value)

    async def list_children(self) -> tuple[ChildRecord, ...]:
        await self._check()
        return tuple(self._host.children[handle] for handle in sorted(self._host.children))

    async def ack(self, handle: ChildHandle) -> None:
        await self._check()
        child = self._host.children.get(handle)
        if child is not None and child.exit is None:
            raise VmHostRefused("ack", RefusalCode.HANDLE_RUNNING, "it has not ended")
        self._host.children.pop(handle, None)

    async def watch(self) -> AsyncIterator[WatchEvent]:
        self._require_host()
        queue: asyncio.Queue[WatchEvent | None] = asyncio.Queue()
        if self._host.hello.stopping:
            queue.put_nowait(Stopping(self._host.hello.start_id))
        for child in self._host.children.values():
            if child.exit is not None:
                queue.put_nowait(child.exit)
        self._host.watchers.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            if queue in self._host.watchers:
                self._host.watchers.remove(queue)
        raise VmHostUnavailable(self.socket_path, "vm-host closed the connection")

    async def _check(self) -> None:
        # As with the real client, every call lets other tasks run.
        await asyncio.sleep(0)
        self._require_host()

    def _require_host(self) -> None:
        if not (self._connected and self._host.alive) or self._hello.start_id != self._host.hello.start_id:
            raise VmHostUnavailable(self.socket_path, "not connected")
