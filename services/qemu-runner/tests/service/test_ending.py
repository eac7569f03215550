"""Ends: the power button, then quit, then SIGKILL; and what each end is called."""

import pytest
from qemu_runner.adapters.vm_host import ChildSignal
from qemu_runner.domain.machine import MachinePhase
from qemu_runner.domain.progress import StopStep
from runner_fakes import World, new_id


async def test_a_guest_that_obeys_is_not_pushed(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        assert await runner.stop(machine_id) == [StopStep.POWERDOWN]
        seen = runner.seen(machine_id)
        assert (seen.phase, seen.exit and seen.exit.reason) == (MachinePhase.EXITED, "STOPPED")


async def test_a_guest_that_does_not_is_made_to_quit(world: World) -> None:
    world.vm_host.obeys = False
    async with world.runner() as runner:
        machine_id = await runner.running()
        assert await runner.stop(machine_id, grace_s=0.05) == [StopStep.POWERDOWN, StopStep.QUIT]


async def test_the_button_is_pressed_again_while_a_guest_does_not_listen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qemu_runner.service.ending._PRESS_EVERY_S", 0.02)
    world.vm_host.obeys = False
    async with world.runner() as runner:
        machine_id = await runner.running()
        await runner.stop(machine_id, grace_s=0.2)
        assert world.vm_host.qemu.commands.count("system_powerdown") > 2


async def test_a_qemu_that_ignores_quit_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qemu_runner.service.ending._QUIT_S", 0.05)
    world.vm_host.deaf = True
    async with world.runner() as runner:
        machine_id = await runner.running()
        assert await runner.stop(machine_id, force=True) == [StopStep.QUIT, StopStep.KILL]
        assert [which for _, which in world.vm_host.signals] == [ChildSignal.KILL]
        seen = runner.seen(machine_id)
        assert seen.exit is not None
        assert seen.exit.reason == "STOPPED"


async def test_force_begins_with_quit(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        await runner.stop(machine_id, force=True)
        assert "system_powerdown" not in world.vm_host.qemu.commands


async def test_a_paused_guest_is_woken_to_hear_the_button(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        machine = runner.services.machines.find(machine_id)
        assert machine is not None
        await runner.services.power.pause(machine)
        await runner.stop(machine_id)
        commands = world.vm_host.qemu.commands
        assert commands.index("stop") < commands.index("cont", commands.index("stop"))


async def test_a_stop_of_what_does_not_run_is_a_success(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        assert await runner.stop(machine_id) == []


async def test_a_guests_own_power_off_is_told_from_a_stop(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        world.vm_host.end(world.vm_host.qemu.handle, code=0)
        seen = await runner.until(machine_id, lambda seen: seen.phase is MachinePhase.EXITED)
        assert seen.exit is not None
        assert seen.exit.reason == "GUEST_SHUTDOWN"


async def test_a_delete_ends_the_process_and_leaves_a_tombstone_only(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        await runner.delete(machine_id, fence=9)
        assert runner.seen(machine_id).phase is MachinePhase.ABSENT
    left = sorted(str(path.relative_to(world.directory)) for path in world.directory.rglob("*"))
    images = [name for name in left if name.startswith("images/")]
    assert [name for name in left if name not in images] == [
        "images",
        "machines",
        "reserve",
        "tombstones",
        f"tombstones/{machine_id}",
    ]
    assert (world.directory / "tombstones" / machine_id).read_text() == "9\n"


async def test_a_delete_of_what_is_not_there_is_a_success(world: World) -> None:
    async with world.runner() as runner:
        await runner.delete(new_id())
