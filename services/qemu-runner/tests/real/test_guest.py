"""What is done inside a guest, with a real agent behind a real QEMU; all of it in one machine."""

import asyncio
import hashlib
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from qcontroller.controller.v1 import instance_pb2
from qcontroller.runner.v1 import runner_pb2 as pb
from runner_stack import DEADLINE_S, RunnerStack, running_stack
from servicekit.rpc_errors import decode

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONTENT = bytes(range(256)) * 4096 + b"and no power of two"


@dataclass
class Guest:
    """The machine that the tests of this module share."""

    stack: RunnerStack
    id: str

    async def shell(self, script: str) -> str:
        answer = await self.stack.execute(self.id, "/bin/sh", "-c", script)
        assert answer.exit_code == 0, answer.stderr
        return answer.stdout.decode()

    async def push(self, path: str, content: bytes = CONTENT, **wish: str) -> instance_pb2.GuestFile:
        def messages() -> Iterator[pb.PushMachineFileRequest]:
            yield pb.PushMachineFileRequest(push=pb.MachineFilePush(machine_id=self.id, path=path, **wish))
            for at in range(0, len(content), 2**20):
                yield pb.PushMachineFileRequest(chunk=content[at : at + 2**20])
            end = instance_pb2.FileEnd(total_bytes=len(content))
            yield pb.PushMachineFileRequest(end=end)

        answer: pb.PushMachineFileResponse = await self.stack.guests.PushMachineFile(
            messages(), timeout=DEADLINE_S
        )
        return answer.file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest() -> AsyncIterator[Guest]:
    with tempfile.TemporaryDirectory(prefix="qc-run-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        async with running_stack(directory) as stack:
            machine_id = str(uuid.uuid4())
            await stack.prepare(machine_id, stack.spec())
            await stack.start(machine_id)
            await stack.until_agent(machine_id)
            yield Guest(stack, machine_id)
            await stack.delete(machine_id)


async def refused(call: object) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # a call of the stub
    problem = decode(caught.value)
    return problem.reason, problem.message


async def test_a_report_tells_what_the_guest_is_and_does(guest: Guest) -> None:
    request = pb.ReadMachineGuestRequest(machine_id=guest.id)
    report = (await guest.stack.guests.ReadMachineGuest(request, timeout=DEADLINE_S)).guest
    assert report.os.kernel_release == (await guest.shell("uname -r")).strip()
    assert report.agent_version
    assert report.load.one_minute >= 0
    assert 100 * 2**20 < report.memory.total_bytes < 256 * 2**20
    assert report.memory.source in {"agent", "balloon"}


async def test_the_balloon_tells_of_the_memory_once_it_has_been_asked(guest: Guest) -> None:
    request = pb.ReadMachineGuestRequest(machine_id=guest.id)
    source = ""
    while source != "balloon":
        report = (await guest.stack.guests.ReadMachineGuest(request, timeout=DEADLINE_S)).guest
        source = report.memory.source
    assert 100 * 2**20 < report.memory.total_bytes < 256 * 2**20
    assert 0 < report.memory.free_bytes < report.memory.total_bytes


async def test_output_is_told_while_the_program_runs(guest: Guest) -> None:
    script = "echo first; until [ -e /tmp/go ]; do sleep 0.1; done; echo last >&2; exit 5"
    request = pb.StreamMachineExecRequest(
        machine_id=guest.id, argv=["/bin/sh", "-c", script], timeout_ms=60_000
    )
    seen, end = [], None
    async for part in guest.stack.guests.StreamMachineExec(request, timeout=DEADLINE_S):
        match part.WhichOneof("part"):
            case "stdout":
                seen.append(part.stdout)
                await guest.shell("touch /tmp/go")
            case "stderr":
                seen.append(part.stderr)
            case "end":
                end = part.end
    assert seen == [b"first\n", b"last\n"]
    assert end == instance_pb2.ExecEnd(exit_code=5)
    assert await guest.shell("rm /tmp/go; ls -A /tmp") == ""


async def test_a_caller_that_hangs_up_ends_its_program(guest: Guest) -> None:
    request = pb.StreamMachineExecRequest(machine_id=guest.id, argv=["sleep", "4711"], timeout_ms=60_000)
    call = guest.stack.guests.StreamMachineExec(request, timeout=DEADLINE_S)
    await call.read()
    assert "sleep 4711" in await guest.shell("ps")
    call.cancel()
    while "sleep 4711" in await guest.shell("ps"):
        pass


async def test_a_file_goes_in_and_comes_out_the_same(guest: Guest) -> None:
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    file = await guest.push("/root/a file", mode="640", owner="root:root", digest=digest)
    assert (file.size_bytes, file.mode, file.owner, file.digest) == (
        len(CONTENT),
        "0640",
        "root:root",
        digest,
    )
    assert (await guest.shell("sha256sum '/root/a file'")).split()[0] == digest.removeprefix("sha256:")
    request = pb.PullMachineFileRequest(machine_id=guest.id, path="/root/a file")
    parts = [part async for part in guest.stack.guests.PullMachineFile(request, timeout=DEADLINE_S)]
    assert parts[0].file == file
    assert b"".join(part.chunk for part in parts[1:]) == CONTENT
    assert await guest.shell("ls -A /root") == "a file\n"


async def test_a_read_only_place_is_a_clear_refusal(guest: Guest) -> None:
    await guest.shell("mkdir -p /ro && mount -t tmpfs -o ro none /ro")
    reason, message = await refused(guest.push("/ro/f"))
    assert (reason, "Read-only file system" in message) == ("GUEST_FILE_REFUSED", True)


async def test_a_full_disk_is_a_clear_refusal_and_leaves_nothing(guest: Guest) -> None:
    await guest.shell("mkdir -p /small && mount -t tmpfs -o size=64k none /small")
    reason, message = await refused(guest.push("/small/f"))
    assert (reason, "No space left" in message) == ("GUEST_FILE_REFUSED", True)
    assert await guest.shell("ls -A /small") == ""


async def test_a_push_whose_caller_goes_leaves_nothing(guest: Guest) -> None:
    async def messages() -> AsyncIterator[pb.PushMachineFileRequest]:
        push = pb.MachineFilePush(machine_id=guest.id, path="/persist/f")
        yield pb.PushMachineFileRequest(push=push)
        yield pb.PushMachineFileRequest(chunk=CONTENT[: 2**20])
        await asyncio.Event().wait()

    call = guest.stack.guests.PushMachineFile(messages(), timeout=DEADLINE_S)
    while ".qcontroller-" not in await guest.shell("ls -A /persist"):
        pass
    call.cancel()
    while ".qcontroller-" in await guest.shell("ls -A /persist"):
        pass


async def test_a_password_and_keys_are_set(guest: Guest) -> None:
    password = pb.SetMachinePasswordRequest(machine_id=guest.id, user="root", password="a:b c")
    await guest.stack.guests.SetMachinePassword(password, timeout=DEADLINE_S)
    hashed = hashlib.sha256(b"a:b c").hexdigest()
    assert (await guest.shell("grep ^root: /etc/shadow")).split(":")[1] == f"$sha256${hashed}"
    keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE first", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF second"]
    for key in keys:
        request = pb.AuthoriseMachineKeysRequest(machine_id=guest.id, user="root", keys=[key])
        await guest.stack.guests.AuthoriseMachineKeys(request, timeout=DEADLINE_S)
    assert (await guest.shell("cat /root/.ssh/authorized_keys")).splitlines() == keys
    unknown = pb.AuthoriseMachineKeysRequest(machine_id=guest.id, user="ghost", keys=keys)
    reason, _ = await refused(guest.stack.guests.AuthoriseMachineKeys(unknown, timeout=DEADLINE_S))
    assert reason == "GUEST_AGENT_REFUSED"


async def test_the_clock_is_right_again_after_a_pause(guest: Guest) -> None:
    await guest.shell("date -s '2020-01-01 00:00:00'")
    fencing = guest.stack.fencing(guest.id)
    await guest.stack.machines.PauseMachine(pb.PauseMachineRequest(fencing=fencing), timeout=DEADLINE_S)
    await guest.stack.machines.ResumeMachine(pb.ResumeMachineRequest(fencing=fencing), timeout=DEADLINE_S)
    while (await guest.shell("date +%Y")).strip() == "2020":
        pass


async def test_a_freeze_and_a_thaw_are_answered(guest: Guest) -> None:
    freeze = pb.FreezeMachineGuestRequest(machine_id=guest.id, timeout_ms=60_000)
    frozen = await guest.stack.guests.FreezeMachineGuest(freeze, timeout=DEADLINE_S)
    thaw = pb.ThawMachineGuestRequest(machine_id=guest.id)
    thawed = await guest.stack.guests.ThawMachineGuest(thaw, timeout=DEADLINE_S)
    assert frozen.HasField("thaw_time")
    assert thawed.filesystems == frozen.filesystems
    assert await guest.shell("echo alive") == "alive\n"
