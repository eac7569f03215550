"""What guests print, with real QEMU: nothing is lost, everything has a time, trouble is known."""

import asyncio
import re
import uuid

from qcontroller.runner.v1 import runner_pb2
from runner_stack import RunnerStack

ACTIVE = runner_pb2.MACHINE_PHASE_ACTIVE
LINES = 3000
NUMBERED = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo num-$i-; done; echo num-end"
EAT_MEMORY = "tail /dev/zero"
OOPS = "<1>BUG: kernel NULL pointer dereference, address: 0000000000000008"


async def running(stack: RunnerStack) -> str:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec())
    await stack.start(machine_id)
    await stack.until_agent(machine_id)
    return machine_id


async def begin(stack: RunnerStack, machine_id: str, script: str, *, to: str = "/dev/ttyS0") -> None:
    """Have the guest do something that this call does not wait for."""
    await stack.execute(machine_id, "/bin/sh", "-c", f"(sleep 0.3; echo; {script}) >{to} 2>&1 &")


async def printed(stack: RunnerStack, machine_id: str, text: str) -> None:
    await stack.until_text(stack.state_dir / "machines" / machine_id / "console.log", text)


async def read(stack: RunnerStack, machine_id: str) -> runner_pb2.ReadMachineConsoleResponse:
    """Read the whole log with its times, as one piece."""
    whole = runner_pb2.ReadMachineConsoleResponse()
    request = runner_pb2.ReadMachineConsoleRequest(machine_id=machine_id, timestamps=True)
    async for piece in stack.machines.ReadMachineConsole(request, timeout=60):
        whole.MergeFrom(piece)
    return whole


def kinds(machine: runner_pb2.Machine) -> list[str]:
    return [trouble.kind for trouble in machine.troubles]


async def test_a_runner_that_is_killed_costs_no_byte_of_the_console(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await begin(stack, machine_id, NUMBERED)
    await printed(stack, machine_id, "num-50-")
    await stack.kill(stack.runner)
    size = (stack.state_dir / "machines" / machine_id / "console.log").stat().st_size
    await printed(stack, machine_id, "num-end")
    await stack.start_runner()
    await stack.until(machine_id, lambda machine: machine.agent.connected)

    whole = await read(stack, machine_id)
    numbers = [int(found) for found in re.findall(rb"num-(\d+)-", whole.chunk)]
    assert numbers == list(range(1, LINES + 1))
    unseen = [mark for mark in whole.times if mark.approximate]
    assert len(unseen) == 1, "one time for all that came meanwhile"
    assert unseen[0].end == len(whole.chunk) > size
    ends = [mark.end for mark in whole.times]
    assert ends == sorted(set(ends))
    times = [mark.time.ToNanoseconds() for mark in whole.times]
    assert times == sorted(times)


async def test_a_follower_sees_stop_and_start_and_leaves_with_the_machine(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec())
    await stack.start(machine_id)
    await printed(stack, machine_id, "Linux version")
    request = runner_pb2.ReadMachineConsoleRequest(machine_id=machine_id, follow=True)
    seen = bytearray()

    async def follow() -> None:
        async for piece in stack.machines.ReadMachineConsole(request, timeout=120):
            assert piece.offset == len(seen)
            seen.extend(piece.chunk)

    following = asyncio.create_task(follow())
    await stack.stop(machine_id, force=True)
    await stack.start(machine_id)
    path = stack.state_dir / "machines" / machine_id / "console.log"
    await stack.until_text(path, "Linux version", times=2)
    log = path.read_bytes()
    await stack.delete(machine_id)
    async with asyncio.timeout(30):
        await following
    assert bytes(seen).startswith(log)
    assert seen.count(b"Linux version") == 2


async def test_the_oom_killer_is_known_and_a_reboot_forgets_it(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await begin(stack, machine_id, EAT_MEMORY, to="/dev/null")
    seen = await stack.until(machine_id, lambda machine: kinds(machine) == ["OUT_OF_MEMORY"])
    assert (seen.phase, seen.run_state) == (ACTIVE, "running")
    assert "(tail)" in seen.troubles[0].line
    await begin(stack, machine_id, "reboot -f", to="/dev/null")
    again = await stack.until(machine_id, lambda machine: machine.boots == 2)
    assert kinds(again) == []


async def test_trouble_is_counted_once_whether_a_runner_sees_it_or_the_next_one(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await begin(stack, machine_id, f"echo '{OOPS}'", to="/dev/kmsg")
    first = await stack.until(machine_id, lambda machine: kinds(machine) == ["KERNEL_OOPS"])
    assert re.fullmatch(r"\[ *\d+\.\d+\] BUG: kernel NULL pointer .*", first.troubles[0].line)
    shell = "sleep 1; echo; echo You are in emergency mode. After logging in, type; echo said"
    await begin(stack, machine_id, shell)
    await stack.kill(stack.runner)
    await printed(stack, machine_id, "said")
    await stack.start_runner()
    seen = await stack.until(machine_id, lambda machine: len(machine.troubles) == 2)
    assert [(one.kind, one.count) for one in seen.troubles] == [("EMERGENCY_SHELL", 1), ("KERNEL_OOPS", 1)]
    assert seen.troubles[1].time == first.troubles[0].time


async def test_a_guest_that_prints_trouble_without_end_costs_few_notices(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    before = await stack.get(machine_id)
    line = "Out of memory: Killed process 1 (liar)"
    flood = f"i=0; while [ $i -lt 800 ]; do i=$((i+1)); echo '{line}'; done"
    await begin(stack, machine_id, flood)
    seen = await stack.until(machine_id, lambda machine: any(one.count >= 512 for one in machine.troubles))
    assert seen.revision - before.revision < 100
