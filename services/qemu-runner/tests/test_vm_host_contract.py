"""The contract of vm-host's client: the real one against a real vm-host, and the fake."""

import asyncio
import json
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest
from qemu_runner.adapters.vm_host import (
    ChildExit,
    ChildHandle,
    ChildRole,
    ChildSignal,
    ExitReason,
    RefusalCode,
    SpawnRequest,
    Stopping,
    VmHostClient,
    VmHostMessageTooLarge,
    VmHostRefused,
    VmHostUnavailable,
    WatchEvent,
    read_stop_record,
)
from vm_host_fake import FakeVmHost, FakeVmHostClient

Client = VmHostClient | FakeVmHostClient

RUNS_ON = ("sleep", "1000")
EXITS_7 = ("sh", "-c", "exit 7")
PROGRAMS = ("sleep", "sh", "cat")
DEADLINE_S = 20.0


class Host(Protocol):
    """What a test does to a vm-host of either kind."""

    def client(self) -> AbstractAsyncContextManager[Client]: ...
    async def stop(self) -> None: ...
    async def kill(self) -> None: ...


class RealHost:
    """A real vm-host process."""

    def __init__(self, process: asyncio.subprocess.Process, socket_path: Path) -> None:
        self.process = process
        self.socket_path = socket_path

    def client(self) -> VmHostClient:
        return VmHostClient(self.socket_path, deadline_s=DEADLINE_S)

    async def stop(self) -> None:
        self.process.terminate()
        await self.process.wait()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


class FakeHost:
    """The fake, driven the same way."""

    def __init__(self) -> None:
        self.fake = FakeVmHost(PROGRAMS, {EXITS_7: 7})

    def client(self) -> FakeVmHostClient:
        return self.fake.client()

    async def stop(self) -> None:
        self.fake.stop()

    async def kill(self) -> None:
        self.fake.die()


@pytest.fixture
async def real_host() -> AsyncIterator[RealHost]:
    # pytest's own directories are closed to the uids that the children get.
    with tempfile.TemporaryDirectory(prefix="qc-vmc-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        socket_path = directory / "vm-host.sock"
        config = directory / "vm-host.json"
        settings = {"socketPath": str(socket_path), "allowedPrograms": PROGRAMS, "stopGrace": "2s"}
        config.write_text(json.dumps(settings))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vm_host", "--config", str(config)), stderr=asyncio.subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(DEADLINE_S):
                while b'"listening"' not in (line := await process.stderr.readline()):
                    assert line, "vm-host ended"
            yield RealHost(process, socket_path)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture(params=["real", "fake"])
def host(request: pytest.FixtureRequest) -> Host:
    if request.param == "fake":
        return FakeHost()
    real: RealHost = request.getfixturevalue("real_host")
    return real


def a_request(argv: tuple[str, ...], handle: ChildHandle | None = None) -> SpawnRequest:
    ids = {"uid": 20900, "gid": 20900} if os.getuid() == 0 else {}
    return SpawnRequest(handle or a_handle(), argv, uid=ids.get("uid"), gid=ids.get("gid"))


def a_handle(role: ChildRole = ChildRole.QEMU) -> ChildHandle:
    return ChildHandle(str(uuid.uuid4()), role, 1)


async def next_event(events: AsyncIterator[WatchEvent]) -> WatchEvent:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(events)


async def test_an_exit_is_watched_and_stays_until_acknowledged(host: Host) -> None:
    async with host.client() as client:
        request = a_request(EXITS_7)
        assert (await client.spawn(request)).created
        ended = await next_event(client.watch())
        assert isinstance(ended, ChildExit)
        assert (ended.handle, ended.code, ended.signal) == (request.handle, 7, None)
        assert ended.reason is ExitReason.EXITED
        assert ended.started_at <= ended.ended_at
    async with host.client() as client:
        assert await next_event(client.watch()) == ended
        assert [child.exit for child in await client.list_children()] == [ended]
        await client.ack(ended.handle)
        await client.ack(ended.handle)
        assert await client.list_children() == ()


async def test_spawn_is_idempotent_per_handle(host: Host) -> None:
    async with host.client() as client:
        request = a_request(RUNS_ON)
        first, second = await client.spawn(request), await client.spawn(request)
        assert (first.created, second.created) == (True, False)
        assert first.child == second.child


async def test_two_incarnations_never_live_at_once(host: Host) -> None:
    async with host.client() as client:
        first = a_handle()
        await client.spawn(a_request(RUNS_ON, first))
        second = ChildHandle(first.machine_id, first.role, 2)
        with pytest.raises(VmHostRefused) as refused:
            await client.spawn(a_request(RUNS_ON, second))
        assert refused.value.code is RefusalCode.INCARNATION_CONFLICT
        await client.signal(first, ChildSignal.KILL)
        await next_event(client.watch())
        assert (await client.spawn(a_request(RUNS_ON, second))).created


async def test_a_signal_ends_the_child_it_names(host: Host) -> None:
    async with host.client() as client:
        one, other = a_handle(), a_handle()
        for handle in (one, other):
            await client.spawn(a_request(RUNS_ON, handle))
        await client.signal(one, ChildSignal.TERM)
        ended = await next_event(client.watch())
        assert isinstance(ended, ChildExit)
        assert (ended.handle, ended.code, ended.signal) == (one, None, 15)
        assert [c.handle for c in await client.list_children() if c.exit is None] == [other]


@pytest.mark.parametrize("operation", ["signal", "ack"])
async def test_a_handle_in_the_wrong_state_is_refused(host: Host, operation: str) -> None:
    async with host.client() as client:
        handle = a_handle()
        if operation == "signal":
            with pytest.raises(VmHostRefused) as refused:
                await client.signal(handle, ChildSignal.KILL)
            assert refused.value.code is RefusalCode.HANDLE_UNKNOWN
        else:
            await client.spawn(a_request(RUNS_ON, handle))
            with pytest.raises(VmHostRefused) as refused:
                await client.ack(handle)
            assert refused.value.code is RefusalCode.HANDLE_RUNNING


async def test_a_program_that_is_not_allowed_is_refused(host: Host) -> None:
    async with host.client() as client:
        with pytest.raises(VmHostRefused) as refused:
            await client.spawn(a_request(("rm", "-r")))
        assert refused.value.code is RefusalCode.PROGRAM_NOT_ALLOWED


async def test_leftover_passt_ends_with_its_qemu(host: Host) -> None:
    async with host.client() as client:
        qemu = a_handle()
        passt = ChildHandle(qemu.machine_id, ChildRole.PASST, 1)
        await client.spawn(a_request(RUNS_ON, passt))
        await client.spawn(a_request(RUNS_ON, qemu))
        events = client.watch()
        await client.signal(qemu, ChildSignal.KILL)
        ended = [await next_event(events), await next_event(events)]
        assert [event.handle for event in ended if isinstance(event, ChildExit)] == [qemu, passt]


async def test_stopping_is_announced_and_ends_every_child_as_a_host_shutdown(host: Host) -> None:
    async with host.client() as client:
        request = a_request(RUNS_ON)
        await client.spawn(request)
        events = client.watch()
        first = asyncio.create_task(next_event(events))
        await client.list_children()  # the watch was asked for before, so it stands now
        await host.stop()
        assert await first == Stopping(client.hello.start_id)
        ended = await next_event(events)
        assert isinstance(ended, ChildExit)
        assert (ended.handle, ended.reason) == (request.handle, ExitReason.HOST_SHUTDOWN)
        with pytest.raises(VmHostUnavailable):
            await next_event(events)


async def test_a_vm_host_that_is_gone_is_unavailable(host: Host) -> None:
    async with host.client() as client:
        await host.kill()
        with pytest.raises(VmHostUnavailable):
            await client.list_children()
    with pytest.raises(VmHostUnavailable):
        async with host.client():
            raise AssertionError("connected to nobody")


async def test_a_watch_ends_with_the_connection(host: Host) -> None:
    async with host.client() as client:
        waiting = asyncio.create_task(next_event(client.watch()))
        await client.list_children()
        await host.kill()
        with pytest.raises(VmHostUnavailable):
            await waiting


async def test_a_descriptor_reaches_the_child_and_stays_the_callers(real_host: RealHost) -> None:
    reader, writer = os.pipe()
    async with real_host.client() as client:
        base = a_request(("sh", "-c", "echo hello >&{fd:out}"))
        request = SpawnRequest(base.handle, base.argv, {"out": writer}, uid=base.uid, gid=base.gid)
        await client.spawn(request)
        os.close(writer)
        await next_event(client.watch())
    with os.fdopen(reader) as file:
        assert file.read() == "hello\n"


async def test_a_request_over_the_limit_is_never_sent(real_host: RealHost) -> None:
    async with real_host.client() as client:
        with pytest.raises(VmHostMessageTooLarge):
            await client.spawn(a_request(("sh", "x" * 65536)))
        base = a_request(("sh",))
        with pytest.raises(VmHostMessageTooLarge):
            await client.spawn(SpawnRequest(base.handle, base.argv, {f"f{n}": 0 for n in range(65)}))
        assert await client.list_children() == ()


async def test_many_requests_at_once_each_get_their_own_answer(real_host: RealHost) -> None:
    async with real_host.client() as client:
        requests = [a_request(EXITS_7) for _ in range(100)]
        spawned = await asyncio.gather(*(client.spawn(request) for request in requests))
        assert [one.child.handle for one in spawned] == [request.handle for request in requests]
        events = client.watch()
        codes = [event.code async for event in _take(events, 100) if isinstance(event, ChildExit)]
        assert codes == [7] * 100


async def _take(events: AsyncIterator[WatchEvent], count: int) -> AsyncIterator[WatchEvent]:
    for _ in range(count):
        yield await next_event(events)


async def test_a_vm_host_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(VmHostUnavailable, match=r"no answer to hello within 0\.05 s"):
            async with VmHostClient(tmp_path / "s", deadline_s=0.05):
                raise AssertionError("connected to nobody")


async def test_the_stop_record_tells_what_nobody_saw(real_host: RealHost) -> None:
    async with real_host.client() as client:
        request = a_request(RUNS_ON)
        await client.spawn(request)
        start_id = client.hello.start_id
    await real_host.stop()
    record = await asyncio.to_thread(read_stop_record, real_host.socket_path)
    assert record is not None
    assert record.start_id == start_id
    assert [(e.handle, e.reason) for e in record.exits] == [(request.handle, ExitReason.HOST_SHUTDOWN)]


async def test_no_stop_record_is_no_answer(tmp_path: Path) -> None:
    assert await asyncio.to_thread(read_stop_record, tmp_path / "vm-host.sock") is None
