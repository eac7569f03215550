"""What a runner makes of what it finds: each row of the protocol's table, and a few more."""

import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from qemu_runner.adapters.vm_host import ChildHandle, ChildRole, StopRecord
from qemu_runner.domain.machine import MachineId, MachinePhase, Nic
from qemu_runner.domain.observation import Observation
from runner_fakes import SPEC, Runner, World, new_id


def is_exited(seen: Observation) -> bool:
    return seen.phase is MachinePhase.EXITED


async def ran_before(world: World) -> MachineId:
    async with world.runner() as runner:
        return await runner.running()


async def test_a_living_machine_is_adopted(world: World) -> None:
    machine_id = await ran_before(world)
    async with world.runner() as runner:
        assert runner.seen(machine_id).run_state == "running"
        assert len(world.vm_host.spawned) == 1


async def test_an_exit_that_nobody_saw_is_learned_and_acknowledged(world: World) -> None:
    machine_id = await ran_before(world)
    world.vm_host.end(world.vm_host.qemu.handle, signal=9)
    async with world.runner() as runner:
        seen = runner.seen(machine_id)
        assert seen.exit is not None
        assert (seen.exit.reason, seen.exit.signal) == ("QEMU_KILLED", 9)
        assert world.vm_host.children == {}


async def test_an_orderly_stop_of_vm_host_is_a_shutdown_of_the_host(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        world.vm_host.stop()
        seen = await runner.until(machine_id, is_exited)
        assert seen.exit is not None
        assert seen.exit.reason == "HOST_SHUTDOWN"


async def test_what_vm_host_wrote_last_is_believed_while_nobody_serves_its_socket(world: World) -> None:
    machine_id = await ran_before(world)
    handle, start_id = world.vm_host.qemu.handle, world.vm_host.hello.start_id
    world.vm_host.announce_stopping()
    world.vm_host.end(handle, code=0)
    end = world.vm_host.children[handle].exit
    assert end is not None
    world.vm_host.die()
    world.last_words = StopRecord(start_id, (end,))
    async with world.runner() as runner:
        seen = runner.seen(machine_id)
        assert seen.exit is not None
        assert seen.exit.reason == "HOST_SHUTDOWN"


async def test_another_vm_host_without_the_machine_proves_its_loss(world: World) -> None:
    machine_id = await ran_before(world)
    world.vm_host.die()
    world.vm_host.restart()
    async with world.runner() as runner:
        seen = runner.seen(machine_id)
        assert seen.exit is not None
        assert seen.exit.reason == "VM_HOST_EXITED"


async def test_another_boot_of_the_host_is_told_from_a_death_of_vm_host(world: World) -> None:
    machine_id = await ran_before(world)
    world.vm_host.die()
    world.vm_host.restart()
    world.vm_host.hello = replace(world.vm_host.hello, boot_id="another")
    async with world.runner() as runner:
        seen = runner.seen(machine_id)
        assert seen.exit is not None
        assert seen.exit.reason == "HOST_RESTARTED"


async def test_a_vm_host_that_does_not_answer_proves_nothing(world: World) -> None:
    machine_id = await ran_before(world)
    world.vm_host.die()
    async with world.runner() as runner:
        seen = runner.seen(machine_id)
        assert (seen.phase, seen.run_state) == (MachinePhase.ACTIVE, "")


async def test_a_vm_host_that_dies_and_comes_back_takes_its_machines_along(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        world.vm_host.die()
        world.vm_host.restart()
        seen = await runner.until(machine_id, is_exited)
        assert seen.exit is not None
        assert seen.exit.reason == "VM_HOST_EXITED"


async def test_a_start_that_was_recorded_and_never_spawned_is_taken_back(world: World) -> None:
    machine_id = await ran_before(world)
    del world.vm_host.children[ChildHandle(machine_id, ChildRole.QEMU, 1)]
    async with world.runner() as runner:
        seen = runner.seen(machine_id)
        assert (seen.phase, seen.exit) == (MachinePhase.PREPARED, None)


async def test_another_qemu_on_the_socket_is_not_taken_for_the_machine(world: World) -> None:
    machine_id = await ran_before(world)
    world.vm_host.qemu.uuid = new_id()
    async with world.runner() as runner:
        assert runner.seen(machine_id).run_state == ""


async def test_a_start_that_was_cut_off_is_begun_anew(world: World) -> None:
    machine_id = await ran_before(world)
    world.vm_host.qemu.state = "prelaunch"
    async with world.runner() as runner:
        assert (await runner.start(machine_id)).run_state == "running"
        assert runner.seen(machine_id).incarnation == 2


async def test_a_monitor_that_breaks_off_is_opened_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qemu_runner.service.adoption._RETRY_FIRST_S", 0.01)
    async with world.runner() as runner:
        machine_id = await runner.running()
        world.vm_host.qemu.hang_up()
        await runner.until(machine_id, lambda seen: seen.run_state == "")
        await runner.until(machine_id, lambda seen: seen.run_state == "running")


async def test_the_fence_of_a_machine_outlives_the_runner(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id, fence=42)
    async with world.runner() as runner:
        assert runner.seen(machine_id).fence == 42


async def test_a_dead_passt_is_known_to_the_next_runner_too(world: World) -> None:
    spec = replace(SPEC, nics=(Nic("user", "52:54:00:00:00:01"),))
    async with world.runner() as runner:
        machine_id = await runner.running(spec)
        world.vm_host.end(ChildHandle(machine_id, ChildRole.PASST, 1), code=1)
        await runner.until(machine_id, lambda seen: seen.network_fault == "PASST_EXITED")
    async with world.runner() as runner:
        seen = await runner.until(machine_id, lambda seen: seen.network_fault == "PASST_EXITED")
        assert seen.run_state == "running"


async def test_directories_without_a_record_are_left_alone_and_told(world: World) -> None:
    stray = world.directory / "machines" / "somebody's"
    async with world.runner() as runner:
        stray.mkdir()
        leaks = await runner.services.host.leaks()
        assert [leak.name for leak in leaks] == [str(stray)]
    async with world.runner():
        assert stray.is_dir()


async def test_a_process_that_no_machine_claims_is_a_leak(world: World) -> None:
    machine_id = await ran_before(world)
    for path in (world.directory / "machines" / machine_id).iterdir():
        os.unlink(path)  # noqa: PTH108 - sockets among them
    async with world.runner() as runner:
        kinds = {leak.kind for leak in await runner.services.host.leaks()}
        assert kinds == {"process", "directory"}


async def test_events_of_qemu_become_observations(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        qemu = world.vm_host.qemu
        qemu.state = "guest-panicked"
        qemu.event("GUEST_PANICKED", action="pause")
        await runner.until(machine_id, lambda seen: seen.run_state == "guest-panicked")
        world.vm_host.end(qemu.handle, code=1)
        seen = await runner.until(machine_id, is_exited)
        assert seen.exit is not None
        assert seen.exit.reason == "KERNEL_PANIC"
        assert seen.exit.time <= datetime.now(UTC)


async def revisions(runner: Runner, machine_id: MachineId) -> int:
    return runner.seen(machine_id).revision


async def test_a_revision_rises_with_a_change_and_only_then(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        before = await revisions(runner, machine_id)
        assert await revisions(runner, machine_id) == before
        await runner.stop(machine_id)
        assert await revisions(runner, machine_id) > before
