"""What lies on the disk may be damaged, half-made or hostile: nothing is lost by it, nothing gets stuck."""

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from qemu_runner.domain.machine import DiskFormat, Image, MachineId, MachinePhase, Nic
from qemu_runner.errors import DiskFullError, DiskUnsafeError, MachineStateError, VmHostUnavailableError
from qemu_runner.store.machine_files import MachineFiles
from qemu_runner.store.reserve import SIZE_BYTES
from runner_fakes import DEADLINE_S, OTHER_BYTES, OTHER_DIGEST, SPEC, World, new_id, with_disk

UNREADABLE = "{"

FULL = OSError(errno.ENOSPC, "No space left on device")


class SmallDisk:
    """Lets files be written only where the reserve has given up some of its room, once for each step."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self._reserve = world.directory / "reserve"
        self._held = self._reserve.stat().st_size
        self._fsync = os.fsync
        patch.setattr("qemu_runner.store.files.os.fsync", self._fsync_if_there_is_room)

    def _fsync_if_there_is_room(self, descriptor: int) -> None:
        held = self._reserve.stat().st_size
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if held >= self._held:
                raise FULL
            self._held = held
        self._fsync(descriptor)


def files_of(world: World, machine_id: MachineId) -> Path:
    return world.directory / "machines" / machine_id


async def damaged(world: World) -> MachineId:
    """A machine that runs, whose record cannot be read by the next life of the service."""
    async with world.runner() as runner:
        machine_id = await runner.running()
    (files_of(world, machine_id) / "machine.json").write_text(UNREADABLE)
    return machine_id


@pytest.mark.parametrize("damage", ["text", "bytes", "directory"])
async def test_a_damaged_record_keeps_no_other_machine_from_being_served(world: World, damage: str) -> None:
    broken = await damaged(world)
    record = files_of(world, broken) / "machine.json"
    match damage:
        case "bytes":
            record.write_bytes(b"\xff\xfe")
        case "directory":
            record.unlink()
            record.mkdir()
    async with world.runner() as runner:
        assert runner.seen(broken).phase is MachinePhase.PREPARING
        assert runner.seen(await runner.running()).run_state == "running"


async def test_nothing_is_prepared_over_files_whose_record_cannot_be_read(world: World) -> None:
    machine_id = await damaged(world)
    overlay = files_of(world, machine_id) / "overlay.qcow2"
    overlay.write_bytes(b"somebody's data")
    async with world.runner() as runner:
        with pytest.raises(MachineStateError, match="readable record"):
            await runner.prepare(machine_id)
    assert overlay.read_bytes() == b"somebody's data"
    assert (files_of(world, machine_id) / "machine.json").read_text() == UNREADABLE


async def test_deleting_a_machine_without_a_record_ends_its_process_too(world: World) -> None:
    machine_id = await damaged(world)
    async with world.runner() as runner:
        await runner.delete(machine_id)
        assert not files_of(world, machine_id).exists()
        assert world.vm_host.children == {}
        assert await runner.services.host.leaks() == ()


async def test_the_guard_stands_while_a_machine_without_a_record_may_run_behind_it(world: World) -> None:
    netted = replace(SPEC, nics=(Nic("user", "52:54:00:00:00:01"),))
    async with world.runner() as runner:
        broken = await runner.running(netted)
        (files_of(world, broken) / "machine.json").write_text(UNREADABLE)
    async with world.runner() as runner:
        other = new_id()
        await runner.prepare(other, netted)
        await runner.delete(other)
        assert world.guard.standing
        await runner.delete(broken)
        assert not world.guard.standing


async def test_the_guard_goes_when_vm_host_takes_the_machine_without_a_record_along(world: World) -> None:
    netted = replace(SPEC, nics=(Nic("user", "52:54:00:00:00:01"),))
    async with world.runner() as runner:
        broken = await runner.running(netted)
        (files_of(world, broken) / "machine.json").write_text(UNREADABLE)
    assert world.guard.standing
    world.word_within_s = DEADLINE_S
    async with world.runner():
        world.vm_host.stop()
    assert not world.guard.standing


async def test_a_machine_without_a_record_is_not_deleted_while_vm_host_is_away(world: World) -> None:
    machine_id = await damaged(world)
    world.vm_host.die()
    async with world.runner() as runner:
        with pytest.raises(VmHostUnavailableError):
            await runner.delete(machine_id)
        assert files_of(world, machine_id).is_dir()


async def test_deleting_what_never_was_needs_no_vm_host(world: World) -> None:
    world.vm_host.die()
    async with world.runner() as runner:
        await runner.delete(new_id())


async def test_a_preparation_that_a_crash_cut_off_before_the_record_goes_on(world: World) -> None:
    machine_id = new_id()
    async with world.runner():
        files_of(world, machine_id).mkdir()
        (files_of(world, machine_id) / ".machine.json.0a1b2c3d").write_text("{")
    async with world.runner() as runner:
        assert (await runner.prepare(machine_id)).phase is MachinePhase.PREPARED


async def test_another_image_takes_the_place_of_a_half_made_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_id = new_id()

    async def full(*_args: object) -> str:
        raise DiskFullError("seed.iso")

    async with world.runner() as runner:
        with monkeypatch.context() as patch:
            patch.setattr(MachineFiles, "make_seed", full)
            with pytest.raises(DiskFullError):
                await runner.prepare(machine_id)
        other = replace(SPEC, image=Image(OTHER_DIGEST, DiskFormat.RAW, 2**20))
        await runner.prepare(machine_id, other)
    assert (files_of(world, machine_id) / "base").read_bytes() == OTHER_BYTES


async def test_an_image_larger_than_the_cache_can_be_launched_from(world: World) -> None:
    world.image_cache_bytes = 1
    async with world.runner() as runner:
        assert (await runner.prepare(new_id())).phase is MachinePhase.PREPARED


async def test_an_image_that_nobody_uses_is_evicted_beyond_the_limit(world: World) -> None:
    world.image_cache_bytes = 1
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        await runner.delete(machine_id)
    assert list((world.directory / "images").iterdir()) == []


async def test_a_disk_that_names_another_file_is_never_opened_to_grow(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        with (files_of(world, machine_id) / "overlay.qcow2").open("r+b") as overlay:
            overlay.seek(72)
            overlay.write((1 << 2).to_bytes(8, "big"))
        with pytest.raises(DiskUnsafeError, match="data file"):
            await runner.prepare(machine_id, with_disk(2**21))


async def test_a_disk_that_somebody_removed_is_not_made_anew_in_silence(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        (files_of(world, machine_id) / "overlay.qcow2").unlink()
        with pytest.raises(DiskUnsafeError, match="not there"):
            await runner.prepare(machine_id)


async def test_a_guest_that_stood_still_for_a_full_disk_goes_on(world: World) -> None:
    async with world.runner() as runner:
        for go_on in ("resume", "start"):
            machine_id = await runner.running()
            world.vm_host.qemu.state = "io-error"
            if go_on == "resume":
                machine = runner.services.machines.find(machine_id)
                assert machine is not None
                await runner.services.power.resume(machine)
            else:
                await runner.start(machine_id)
            assert (runner.seen(machine_id).incarnation, world.vm_host.qemu.state) == (1, "running")


async def test_a_machine_is_stopped_and_deleted_on_a_full_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        with monkeypatch.context() as patch:
            SmallDisk(world, patch)
            await runner.stop(machine_id, force=True, fence=2)
            await runner.delete(machine_id, fence=3)
        assert runner.seen(machine_id).phase is MachinePhase.ABSENT
        assert (world.directory / "reserve").stat().st_size == SIZE_BYTES


async def test_a_new_machine_gets_nothing_of_the_reserve(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.runner() as runner:
        SmallDisk(world, monkeypatch)
        with pytest.raises(DiskFullError):
            await runner.prepare(new_id())
        assert (world.directory / "reserve").stat().st_size == SIZE_BYTES


async def test_a_fence_that_cannot_be_kept_lets_nothing_be_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        (world.directory / "reserve").unlink()
        monkeypatch.setattr("qemu_runner.store.files.os.fsync", _full)
        with pytest.raises(DiskFullError):
            await runner.stop(machine_id, force=True, fence=2)
        assert runner.seen(machine_id).run_state == "running"


def _full(_descriptor: int) -> None:
    raise FULL
