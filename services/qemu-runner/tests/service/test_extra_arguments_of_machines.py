"""An operator's arguments on machines: shown before a launch, given to QEMU, recorded with the start."""

from runner_fakes import SPEC, World, new_id

WATCHDOG = ("-device", "i6300esb", "-action", "watchdog=reset")
PLACED = ("-device", "i6300esb,bus=pcie.0,addr=0x10", "-action", "watchdog=reset")


async def test_a_plan_shows_and_names_them(world: World) -> None:
    world.extra_arguments = WATCHDOG
    async with world.runner() as runner:
        plan = await runner.services.planning.plan(new_id(), SPEC)
    assert plan.qemu_argv[-4:] == PLACED
    assert any("-device i6300esb -action watchdog=reset" in warning for warning in plan.warnings)


async def test_qemu_gets_them_and_the_record_tells_so(world: World) -> None:
    world.extra_arguments = WATCHDOG
    async with world.runner() as runner:
        machine_id = await runner.running()
        assert world.vm_host.spawned[-1].argv[-4:] == PLACED
        machine = runner.services.machines.find(machine_id)
        assert machine is not None
        run = machine.run
        assert run is not None
        assert run.extra_arguments == WATCHDOG


async def test_without_the_setting_nothing_is_added(world: World) -> None:
    async with world.runner() as runner:
        plan = await runner.services.planning.plan(new_id(), SPEC)
    assert not any("add QEMU arguments" in warning for warning in plan.warnings)
