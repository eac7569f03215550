"""A process is a machine's only if its vm-host says so and its monitor answers with the machine's UUID.

Whatever else claims to be it is neither adopted nor signalled, and nothing that it tells is recorded.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from qemu_runner.adapters.vm_host import ChildExit, ChildHandle, ChildRecord, ChildRole, ExitReason
from qemu_runner.domain.machine import MachineId, MachinePhase
from qemu_runner.errors import RunnerError
from runner_fakes import World, new_id


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has nothing to do with any machine."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


async def ran_before(world: World) -> MachineId:
    async with world.runner() as runner:
        return await runner.running()


def of_incarnation(machine_id: MachineId, incarnation: int, pid: int) -> ChildRecord:
    handle = ChildHandle(machine_id, ChildRole.QEMU, incarnation)
    return ChildRecord(handle, pid, datetime.now(UTC))


async def test_a_monitor_that_answers_with_another_uuid_is_not_adopted(world: World) -> None:
    machine_id = await ran_before(world)
    world.vm_host.qemu.uuid = new_id()
    said = len(world.vm_host.qemu.commands)
    async with world.runner() as runner:
        seen = runner.seen(machine_id)
        assert (seen.phase, seen.run_state) == (MachinePhase.ACTIVE, ""), "it is known of, and not looked at"
        assert not {"cont", "quit", "stop", "system_powerdown"} & set(world.vm_host.qemu.commands[said:])
        assert world.vm_host.signals == []


async def test_a_recycled_pid_is_never_signalled(world: World, stranger: "subprocess.Popen[bytes]") -> None:
    """The pid that vm-host tells is a hint for people: it has become another process's meanwhile."""
    machine_id = await ran_before(world)
    handle = world.vm_host.qemu.handle
    world.vm_host.children[handle] = replace(world.vm_host.children[handle], pid=stranger.pid)
    async with world.runner() as runner:
        await runner.stop(machine_id, force=True)
        await runner.delete(machine_id)
    assert stranger.poll() is None
    os.kill(stranger.pid, 0)


async def test_a_child_of_another_incarnation_is_not_taken_for_the_machine(
    world: World, stranger: "subprocess.Popen[bytes]"
) -> None:
    machine_id = await ran_before(world)
    child = of_incarnation(machine_id, 7, stranger.pid)
    world.vm_host.children = {child.handle: child}
    async with world.runner() as runner:
        seen = runner.seen(machine_id)
        assert seen.phase is not MachinePhase.ACTIVE, "vm-host proves that its own process is gone"
        assert world.vm_host.signals == []
        leaks = await runner.services.host.leaks()
        assert [leak.kind for leak in leaks] == ["process"], "and reports the stranger"
        assert machine_id in leaks[0].name


async def test_the_end_of_another_incarnation_is_not_the_machines(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        child = of_incarnation(machine_id, 7, 1)
        world.vm_host.children[child.handle] = child
        world.vm_host.end(child.handle, code=1)
        other = await runner.running()
        await runner.until(other, lambda seen: seen.run_state == "running")
        assert runner.seen(machine_id).phase is MachinePhase.ACTIVE


async def test_an_end_that_another_vm_host_tells_is_not_the_machines(world: World) -> None:
    second = world.add_second("2")
    world.vm_host.hello = replace(world.vm_host.hello, generation="3")
    machine_id = await ran_before(world)
    handle = world.vm_host.qemu.handle
    now = datetime.now(UTC)
    forged = ChildExit(handle, 1, None, ExitReason.EXITED, now, now)
    second.children[handle] = ChildRecord(handle, 1, now, forged)
    async with world.runner() as runner:
        assert runner.seen(machine_id).run_state == "running"
        assert second.children == {}, "it was looked at, and let go of"


async def test_what_cannot_be_recognised_is_not_stopped_by_its_monitor(world: World) -> None:
    machine_id = await ran_before(world)
    foreign = world.vm_host.qemu
    foreign.uuid = new_id()
    said = len(foreign.commands)
    async with world.runner() as runner:
        with suppress(RunnerError):
            await runner.stop(machine_id)
        assert not {"quit", "system_powerdown"} & set(foreign.commands[said:])
