"""What a guest or the host does to a running machine, and what the runner tells of it, with real QEMU."""

import os
import signal
import uuid

from qcontroller.runner.v1 import runner_pb2
from real_host import qemu_pids
from runner_stack import RunnerStack

ACTIVE = runner_pb2.MACHINE_PHASE_ACTIVE
EXITED = runner_pb2.MACHINE_PHASE_EXITED
PANIC = "echo c > /proc/sysrq-trigger"
# Without the driver and without a reboot of its own, the kernel tells of its end on the console alone.
QUIET_PANIC = f"modprobe -r pvpanic-pci; echo 0 > /proc/sys/kernel/panic; {PANIC}"


async def running(stack: RunnerStack) -> str:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec())
    await stack.start(machine_id)
    await stack.until_agent(machine_id)
    return machine_id


async def later(stack: RunnerStack, machine_id: str, script: str) -> None:
    """Have the guest do something once it has answered."""
    await stack.execute(machine_id, "/bin/sh", "-c", f"(sleep 0.3; {script}) >/dev/null 2>&1 &")


async def test_a_panic_that_the_guests_driver_tells_ends_qemu(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await later(stack, machine_id, PANIC)
    seen = await stack.until(machine_id, lambda machine: machine.phase == EXITED)
    assert seen.exit.reason == "KERNEL_PANIC"
    assert "Kernel panic - not syncing" in seen.exit.console_tail
    assert qemu_pids(machine_id) == []


async def test_a_panic_without_the_driver_is_read_from_the_console(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await later(stack, machine_id, QUIET_PANIC)
    seen = await stack.until(machine_id, lambda machine: machine.panicked)
    assert (seen.phase, seen.run_state) == (ACTIVE, "running"), "QEMU itself knows of nothing"
    again = await stack.start(machine_id)
    assert (again.incarnation, again.panicked) == (2, False), "a start does not take it for running"
    await stack.until_agent(machine_id)


async def test_a_panic_that_nobody_watched_is_found_by_the_next_runner(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await later(stack, machine_id, f"sleep 1; {QUIET_PANIC}")
    await stack.kill(stack.runner)
    log = stack.state_dir / "machines" / machine_id / "console.log"
    await stack.until_text(log, "end Kernel panic")
    await stack.start_runner()
    seen = await stack.until(machine_id, lambda machine: machine.panicked)
    assert seen.phase == ACTIVE
    _, stopped = await stack.stop(machine_id, force=True)
    assert stopped.exit.reason == "KERNEL_PANIC"


async def test_the_same_words_from_a_guest_that_lives_are_not_believed(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    # Behind a line's end of its own: the prompt has none.
    lie = r"printf '\n[    9.000000] ---[ end Kernel panic - not syncing: no, it is not ]---\n' > /dev/ttyS0"
    await stack.execute(machine_id, "/bin/sh", "-c", lie)
    await stack.until_log("qemu_runner", "panic on the console, and the agent answers")
    seen = await stack.get(machine_id)
    assert (seen.phase, seen.panicked, seen.agent.connected) == (ACTIVE, False, True)


async def test_a_guest_that_reboots_is_counted_and_its_agent_is_gone_meanwhile(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    first = await stack.get(machine_id)
    assert first.boots == 1
    await later(stack, machine_id, "reboot -f")
    seen = await stack.until(machine_id, lambda machine: machine.boots == 2)
    assert (seen.phase, seen.incarnation, seen.agent.connected) == (ACTIVE, 1, False)
    assert seen.boot_time.ToDatetime() > first.boot_time.ToDatetime()
    await stack.until_agent(machine_id)
    assert (await stack.get(machine_id)).boots == 2, "however often its firmware resets"


async def test_a_reboot_that_nobody_watched_is_counted_by_the_next_runner(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    await later(stack, machine_id, "sleep 1; reboot -f")
    await stack.kill(stack.runner)
    log = stack.state_dir / "machines" / machine_id / "console.log"
    await stack.until_text(log, "Linux version", times=2)
    await stack.start_runner()
    await stack.until(machine_id, lambda machine: machine.boots == 2)


async def test_a_signal_that_qemu_obeys_is_no_power_off_of_the_guest(stack: RunnerStack) -> None:
    machine_id = await running(stack)
    (pid,) = qemu_pids(machine_id)
    os.kill(pid, signal.SIGTERM)
    seen = await stack.until(machine_id, lambda machine: machine.phase == EXITED)
    assert (seen.exit.reason, seen.exit.signal) == ("QEMU_KILLED", signal.SIGTERM)
    assert "SIGTERM" in seen.exit.message
