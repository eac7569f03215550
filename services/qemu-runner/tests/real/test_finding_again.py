"""What the runner finds when it, or vm-host, comes back: nothing lost, nothing believed without proof."""

import os
import signal
import uuid
from pathlib import Path

import grpc
import pytest
from qcontroller.runner.v1 import runner_pb2
from real_host import qemu_pids
from runner_stack import RunnerStack

ACTIVE = runner_pb2.MACHINE_PHASE_ACTIVE
EXITED = runner_pb2.MACHINE_PHASE_EXITED


async def running(stack: RunnerStack, **changes: object) -> str:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec(**changes))
    await stack.start(machine_id)
    await stack.until_agent(machine_id)
    return machine_id


async def boot_id(stack: RunnerStack, machine_id: str) -> bytes:
    return (await stack.execute(machine_id, "/bin/cat", "/proc/sys/kernel/random/boot_id")).stdout


async def test_a_killed_runner_finds_its_running_machine_again(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    before = await boot_id(stack, machine_id)
    await stack.kill(stack.runner)
    await stack.start_runner()
    await stack.until_agent(machine_id)
    assert await boot_id(stack, machine_id) == before
    steps, stopped = await stack.stop(machine_id)
    assert steps == [runner_pb2.STOP_STEP_POWERDOWN]
    assert stopped.exit.reason == "STOPPED"
    phases = {phase.name for phase in stopped.boot_phases}
    assert {"kernel", "userspace", "agent"} <= phases
    await stack.delete(machine_id)


async def test_a_machine_that_ended_while_the_runner_was_away_is_known_to_have_ended(
    stack: RunnerStack,
) -> None:
    machine_id = await running(stack)
    await stack.kill(stack.runner)
    (pid,) = qemu_pids(machine_id)
    os.kill(pid, signal.SIGKILL)
    await stack.start_runner()
    seen = await stack.until(machine_id, lambda machine: machine.phase == EXITED)
    assert (seen.exit.reason, seen.exit.signal) == ("QEMU_KILLED", signal.SIGKILL)
    assert "Linux version" in await stack.console(machine_id)
    assert seen.exit.console_tail


async def test_the_death_of_vm_host_is_proved_by_the_next_one(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await stack.kill(stack.vm_host)
    assert (await stack.get(machine_id)).phase == ACTIVE, "nobody has proved anything yet"
    await stack.start_vm_host()
    seen = await stack.until(machine_id, lambda machine: machine.phase == EXITED)
    assert seen.exit.reason == "VM_HOST_EXITED"
    assert (await stack.start(machine_id)).run_state == "running"
    await stack.stop(machine_id, force=True)


async def test_a_vm_host_that_stops_in_good_order_says_so(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    stack.vm_host.send_signal(signal.SIGTERM)
    seen = await stack.until(machine_id, lambda machine: machine.phase == EXITED)
    assert seen.exit.reason == "HOST_SHUTDOWN"
    await stack.vm_host.wait()


async def test_what_vm_host_wrote_last_is_read_by_a_runner_that_was_away(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await stack.kill(stack.runner)
    stack.vm_host.send_signal(signal.SIGTERM)
    await stack.vm_host.wait()
    await stack.start_runner()
    seen = await stack.until(machine_id, lambda machine: machine.phase == EXITED)
    assert seen.exit.reason == "HOST_SHUTDOWN"


async def test_a_guest_that_powers_itself_off_is_told_from_a_crash(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await stack.execute(machine_id, "/bin/sh", "-c", "(sleep 0.2; poweroff) >/dev/null 2>&1 &")
    seen = await stack.until(machine_id, lambda machine: machine.phase == EXITED)
    assert seen.exit.reason == "GUEST_SHUTDOWN"


async def test_a_start_that_qemu_refuses_carries_its_words(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec())
    overlay = stack.state_dir / "machines" / machine_id / "overlay.qcow2"
    overlay.write_bytes(b"no disk at all" * 1000)
    with pytest.raises(grpc.aio.AioRpcError, match=r"QEMU did not start.*qcow2"):
        await stack.start(machine_id)
    assert (await stack.get(machine_id)).exit.reason == "QEMU_EXITED"
    assert qemu_pids(machine_id) == []
    assert not list(Path(overlay.parent).glob("qmp"))
