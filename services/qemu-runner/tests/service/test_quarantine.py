"""Machines that the caller does not know are shown, and change hands without being touched."""

from dataclasses import replace

import pytest
from qemu_runner.domain.machine import MachineId, MachinePhase, Seed
from qemu_runner.errors import MachineNotFoundError, StaleFenceError
from qemu_runner.service.actions import Emit
from qemu_runner.service.machines import Machine
from qemu_runner.store.machine_files import SEED
from runner_fakes import SPEC, Runner, World, new_id


async def claim(runner: Runner, machine_id: MachineId, fence: int = 1) -> None:
    async def body(machine: Machine, _emit: Emit) -> None:
        await runner.services.quarantine.claim(machine, "renamed", "another", "{}")

    await runner.do("claim", machine_id, body, fence=fence)


async def test_what_the_caller_names_is_not_listed(world: World) -> None:
    async with world.runner() as runner:
        known, unknown = await runner.running(), await runner.running()
        (found,) = await runner.services.quarantine.unclaimed(frozenset({known}))
        assert found.observation.machine_id == unknown


async def test_an_unclaimed_machine_is_told_with_process_size_and_time(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        (found,) = await runner.services.quarantine.unclaimed(frozenset())
        assert found.running
        assert found.fault == ""
        await runner.stop(machine_id, force=True)
        (found,) = await runner.services.quarantine.unclaimed(frozenset())
        assert not found.running
        assert found.observation.phase is MachinePhase.EXITED
        # Nothing is written any more: its files can be compared.
        directory = world.directory / "machines" / machine_id
        assert found.since.timestamp() == pytest.approx((directory / "machine.json").stat().st_mtime)
        own = [path for path in directory.iterdir() if path.lstat().st_nlink == 1]
        assert found.disk_bytes == sum(path.lstat().st_blocks * 512 for path in own) > 0


async def test_a_directory_whose_record_cannot_be_read_is_listed_with_the_reason(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
    (world.directory / "machines" / machine_id / "machine.json").write_text("{")
    async with world.runner() as runner:
        (found,) = await runner.services.quarantine.unclaimed(frozenset())
        assert found.observation.machine_id == machine_id
        assert "JSONDecodeError" in found.fault
        assert found.running, "vm-host has a process of it"


async def test_what_is_no_machine_of_ours_is_not_listed(world: World) -> None:
    async with world.runner() as runner:
        (world.directory / "machines" / "lost+found").mkdir()
        (world.directory / "machines" / new_id()).mkdir()
        (world.directory / "machines" / new_id()).write_text("a file")
        assert await runner.services.quarantine.unclaimed(frozenset()) == []


async def test_a_claim_changes_whose_it_is_and_nothing_else(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        before = runner.services.machines.records()[0]
        qemu = world.vm_host.qemu
        said = list(qemu.commands)
        await claim(runner, machine_id, fence=9)
        (after,) = runner.services.machines.records()
        spec = replace(before.spec, name="renamed", cluster_id="another", instance_record="{}")
        # What the guest's boot reaches is written down meanwhile.
        assert after == replace(before, spec=spec, fence=9, run=after.run)
        assert after.run is not None
        assert before.run is not None
        assert after.run.start_time == before.run.start_time
        assert all(command.startswith("query-") for command in qemu.commands[len(said) :])
    async with world.runner() as runner:
        assert runner.services.machines.records()[0].spec.cluster_id == "another", "it is durable"


async def test_a_claim_shuts_out_the_owner_before(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        await claim(runner, machine_id, fence=9)
        with pytest.raises(StaleFenceError):
            await runner.stop(machine_id, force=True, fence=8)
        assert runner.seen(machine_id).phase is MachinePhase.ACTIVE


async def test_a_claim_of_what_has_no_record_is_refused(world: World) -> None:
    async with world.runner() as runner:
        with pytest.raises(MachineNotFoundError):
            await claim(runner, new_id())


async def test_a_look_without_a_fence_tells_that_of_a_deleted_machine(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        await runner.delete(machine_id, fence=7)
        machines = runner.services.machines
        async with machines.using(machine_id) as machine:
            await machines.learn_fence(machine)
            assert machines.observation(machine).fence == 7


@pytest.mark.parametrize("there", [True, False])
async def test_a_seed_that_is_to_be_kept_is_made_only_where_there_is_none(world: World, there: bool) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        path = world.directory / "machines" / machine_id / SEED
        await runner.prepare(machine_id)
        if not there:
            path.unlink()
        before = path.read_bytes() if there else b""

        async def body(machine: Machine, emit: Emit) -> None:
            await runner.services.preparation.prepare(machine, SPEC, Seed(b"#new", keep=True), emit)

        await runner.do("prepare", machine_id, body)
        assert (path.read_bytes() == before) is there
