"""Fences, locks and callers that hang up."""

import asyncio
from dataclasses import replace

import pytest
from qemu_runner.domain.machine import MachinePhase, Nic, PortMapping
from qemu_runner.domain.observation import Observation
from qemu_runner.errors import (
    ImageCorruptError,
    ImageStoreUnavailableError,
    MachineStateError,
    SpecInvalidError,
    StaleFenceError,
)
from qemu_runner.service.actions import Emit
from qemu_runner.service.hub import SnapshotComplete
from qemu_runner.service.machines import Machine
from runner_fakes import SPEC, World, new_id, with_disk


async def nothing(_machine: Machine, _emit: Emit) -> None:
    return


async def test_a_lower_fence_is_refused_before_anything_is_done(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id, fence=5)
        with pytest.raises(StaleFenceError):
            await runner.start(machine_id, fence=4)
        assert world.vm_host.spawned == []


async def test_a_fence_is_durable_before_the_action_begins(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id, fence=5)
        record = world.directory / "machines" / machine_id / "machine.json"
        seen: list[str] = []

        async def look(_machine: Machine, _emit: Emit) -> None:
            seen.append(await asyncio.to_thread(record.read_text))

        await runner.do("look", machine_id, look, fence=6)
        assert '"fence": 6' in seen[0]


async def test_a_repeated_request_joins_the_action_in_flight(world: World) -> None:
    async with world.runner() as runner:
        machine_id, gate, runs = new_id(), asyncio.Event(), 0

        async def wait(_machine: Machine, _emit: Emit) -> None:
            nonlocal runs
            runs += 1
            await gate.wait()

        calls = [asyncio.create_task(runner.do("x", machine_id, wait, request_id="r")) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*calls)
        assert runs == 1


async def test_a_prepare_whose_caller_hangs_up_is_broken_off_without_a_trace(
    world: World,
) -> None:
    world.blobs.gate = asyncio.Event()
    async with world.runner() as runner:
        machine_id = new_id()
        call = asyncio.create_task(runner.prepare(machine_id))
        await runner.until(machine_id, lambda seen: seen.phase is MachinePhase.PREPARING)
        call.cancel()
        await asyncio.wait({call})
        await runner.do("quiesce", machine_id, nothing, fence=2)
        assert not runner.services.actions.is_busy(machine_id)
        assert list((world.directory / "images").iterdir()) == []


async def test_a_higher_fence_breaks_off_what_a_replaced_caller_began(world: World) -> None:
    world.blobs.gate = asyncio.Event()
    async with world.runner() as runner:
        machine_id = new_id()
        first = asyncio.create_task(runner.prepare(machine_id, fence=1))
        await runner.until(machine_id, lambda seen: seen.phase is MachinePhase.PREPARING)
        await runner.do("quiesce", machine_id, nothing, fence=2)
        with pytest.raises(StaleFenceError):
            await first


async def test_a_start_whose_caller_hangs_up_is_finished(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        call = asyncio.create_task(runner.start(machine_id))
        await runner.until(machine_id, lambda seen: seen.phase is MachinePhase.ACTIVE)
        call.cancel()
        seen: Observation = await runner.do("quiesce", machine_id, nothing, fence=2)
        assert seen.run_state == "running"


async def test_machines_of_one_image_share_one_download(world: World) -> None:
    async with world.runner() as runner:
        await asyncio.gather(*(runner.prepare(new_id()) for _ in range(5)))
        assert world.blobs.reads == 1


async def test_a_store_that_breaks_off_leaves_nothing_and_can_be_asked_again(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        world.blobs.away = True
        with pytest.raises(ImageStoreUnavailableError):
            await runner.prepare(machine_id)
        assert list((world.directory / "images").iterdir()) == []
        world.blobs.away = False
        assert (await runner.prepare(machine_id)).phase is MachinePhase.PREPARED


async def test_bytes_of_another_digest_are_never_used(world: World) -> None:
    world.blobs.data = world.blobs.data[:-1] + b"!"
    async with world.runner() as runner:
        with pytest.raises(ImageCorruptError):
            await runner.prepare(new_id())
        assert list((world.directory / "images").iterdir()) == []


async def test_a_prepare_that_finds_everything_changes_nothing(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        first = await runner.prepare(machine_id)
        assert await runner.prepare(machine_id) == first


async def test_a_disk_grows_and_never_shrinks_below_its_image(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        await runner.prepare(machine_id, with_disk(2**21))
        overlay = world.directory / "machines" / machine_id / "overlay.qcow2"
        assert int.from_bytes(overlay.read_bytes()[24:32], "big") == 2**21
        with pytest.raises(SpecInvalidError):
            await runner.prepare(machine_id, with_disk(2**10))


async def test_hardware_of_a_running_machine_is_not_changed_but_its_name_is(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        with pytest.raises(MachineStateError):
            await runner.prepare(machine_id, replace(SPEC, cpus=2))
        seen = await runner.prepare(machine_id, replace(SPEC, name="other"))
        assert seen.spec is not None
        assert seen.spec.name == "other"


async def test_user_data_is_in_no_record(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        assert (
            "local-hostname" not in (world.directory / "machines" / machine_id / "machine.json").read_text()
        )


async def test_networks_that_nobody_knows_are_refused_by_pointer(world: World) -> None:
    async with world.runner() as runner:
        with pytest.raises(SpecInvalidError) as caught:
            await runner.prepare(new_id(), replace(SPEC, nics=(Nic("lan", "52:54:00:00:00:01"),)))
        assert [fault.pointer for fault in caught.value.faults] == ["/nics/0/network"]


async def test_a_port_out_of_range_is_refused_by_pointer(world: World) -> None:
    nic = Nic("user", "52:54:00:00:00:01", (PortMapping(70_000, 22),))
    async with world.runner() as runner:
        with pytest.raises(SpecInvalidError) as caught:
            await runner.prepare(new_id(), replace(SPEC, nics=(nic,)))
        assert [fault.pointer for fault in caught.value.faults] == ["/ports/0"]


async def test_a_watcher_gets_the_machines_that_are_there_and_then_the_word(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        watch = runner.services.machines.watch()
        first, second = await anext(watch), await anext(watch)
        assert isinstance(first, Observation)
        assert first.machine_id == machine_id
        assert isinstance(second, SnapshotComplete)
        await watch.aclose()  # type: ignore[attr-defined]  # it is a generator


async def test_a_watcher_that_lags_gets_the_newest_of_each_machine(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        watch = runner.services.machines.watch()
        await anext(watch)
        await anext(watch)
        await runner.prepare(machine_id)
        await runner.start(machine_id)
        await runner.stop(machine_id)
        seen = await anext(watch)
        assert isinstance(seen, Observation)
        assert seen.phase is MachinePhase.EXITED
        await watch.aclose()  # type: ignore[attr-defined]  # it is a generator
