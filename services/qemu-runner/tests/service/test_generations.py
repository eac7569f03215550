"""Two vm-hosts: the newest takes what starts, the other keeps what runs until it has nothing left."""

from dataclasses import replace

import pytest
from qemu_runner.domain.machine import MachineId, MachinePhase
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import VmHostUnavailableError
from qemu_runner.service.vm_hosts import VmHostState
from runner_fakes import QemuHost, Runner, World
from vm_host_fake import OFFER


def record(runner: Runner, machine_id: MachineId) -> MachineRecord:
    found = runner.services.machines.find(machine_id)
    assert found is not None
    return found.require()


def host_of(runner: Runner, machine_id: MachineId) -> str:
    run = record(runner, machine_id).run
    assert run is not None
    return run.vm_host


async def states(runner: Runner) -> list[tuple[str, VmHostState, int]]:
    node = await runner.services.host.node()
    return [(view.name, view.state, view.machines) for view in node.vm_hosts]


def labelled(host: QemuHost, generation: str) -> None:
    host.hello = replace(host.hello, generation=generation)


async def test_new_machines_go_to_the_higher_generation_wherever_it_stands(world: World) -> None:
    labelled(world.vm_host, "10")
    second = world.add_second("9")
    async with world.runner() as runner:
        assert host_of(runner, await runner.running()) == str(world.vm_host.socket_path)
        assert second.spawned == []


async def test_of_two_without_numbers_the_later_in_the_settings_is_the_newest(world: World) -> None:
    second = world.add_second("blue")
    async with world.runner() as runner:
        assert host_of(runner, await runner.running()) == str(second.socket_path)


async def test_what_runs_stays_and_a_stop_and_start_moves_it(world: World) -> None:
    labelled(world.vm_host, "1")
    second = world.add_second("2")
    second.alive = False
    async with world.runner() as runner:
        machine_id = await runner.running()
        second.restart()
        await runner.until_vm_host(second)
        assert await states(runner) == [
            ("vm-host", VmHostState.DRAINING, 1),
            ("vm-host-b", VmHostState.READY, 0),
        ]
        assert host_of(runner, machine_id) == str(world.vm_host.socket_path)
        assert second.spawned == []
        await runner.stop(machine_id)
        await runner.start(machine_id)
        assert host_of(runner, machine_id) == str(second.socket_path)
        assert await states(runner) == [
            ("vm-host", VmHostState.DRAINING, 0),
            ("vm-host-b", VmHostState.READY, 1),
        ]


async def test_a_machine_keeps_its_type_under_a_newer_qemu(world: World) -> None:
    labelled(world.vm_host, "1")
    second = world.add_second("2")
    second.alive = False
    async with world.runner() as runner:
        machine_id = await runner.running()
        await runner.stop(machine_id)
        second.restart()
        await runner.until_vm_host(second)
        await runner.start(machine_id)
        run = record(runner, machine_id).run
        assert run is not None
        assert (run.machine_type, run.qemu_version) == ("pc-q35-7.2", "10.0.0")
        assert record(runner, await runner.running()).machine_type == "pc-q35-10.0"


async def test_a_type_that_qemu_has_no_more_gives_way_to_the_newest(world: World) -> None:
    labelled(world.vm_host, "1")
    second = world.add_second("2")
    alone = replace(OFFER, machine_types=("pc-q35-10.0",), machine_aliases={"q35": "pc-q35-10.0"})
    second.hello = replace(second.hello, qemu=(alone,))
    second.alive = False
    async with world.runner() as runner:
        machine_id = await runner.running()
        await runner.stop(machine_id)
        second.restart()
        await runner.until_vm_host(second)
        await runner.start(machine_id)
        assert record(runner, machine_id).machine_type == "pc-q35-10.0"


async def test_the_end_of_the_older_one_leaves_the_machines_of_the_newer_alone(world: World) -> None:
    labelled(world.vm_host, "1")
    second = world.add_second("2")
    async with world.runner() as runner:
        machine_id = await runner.running()
        world.vm_host.stop()
        await runner.until_vm_host(world.vm_host, there=False)
        assert runner.seen(machine_id).phase is MachinePhase.ACTIVE
        assert await states(runner) == [("vm-host-b", VmHostState.READY, 1)]
        assert [each.up for each in runner.services.host.dependencies()] == [True]
        assert await runner.services.host.leaks() == ()
    async with world.runner() as runner:
        assert runner.seen(machine_id).phase is MachinePhase.ACTIVE
        assert second.signals == []


async def test_the_end_of_the_newer_one_lets_the_older_take_machines_again(world: World) -> None:
    labelled(world.vm_host, "1")
    second = world.add_second("2")
    async with world.runner() as runner:
        second.die()
        await runner.until_vm_host(second, there=False)
        assert host_of(runner, await runner.running()) == str(world.vm_host.socket_path)


async def test_one_that_is_away_with_machines_is_shown_and_missed(world: World) -> None:
    labelled(world.vm_host, "1")
    second = world.add_second("2")
    second.alive = False
    async with world.runner() as runner:
        await runner.running()
        second.restart()
        await runner.until_vm_host(second)
        world.vm_host.die()
        await runner.until_vm_host(world.vm_host, there=False)
        assert ("vm-host", VmHostState.UNREACHABLE, 1) in await states(runner)
        assert sorted(each.up for each in runner.services.host.dependencies()) == [False, True]
        with pytest.raises(VmHostUnavailableError):
            await runner.services.host.leaks()
