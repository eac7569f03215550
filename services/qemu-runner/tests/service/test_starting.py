"""Starts are honest: running, or an error that says why and leaves nothing."""

import asyncio
from dataclasses import replace

import pytest
from qemu_runner.adapters.vm_host import ChildRole
from qemu_runner.domain.machine import MachinePhase, Nic
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import (
    HostCapacityError,
    MachineNotFoundError,
    MachineStateError,
    NetworkUnavailableError,
    QemuStartError,
    QemuUnavailableError,
    VmHostUnavailableError,
)
from qemu_runner.store.machine_store import MachineStore
from runner_fakes import DEADLINE_S, SPEC, World, new_id

NETTED = replace(SPEC, nics=(Nic("user", "52:54:00:00:00:01"),))


async def test_a_start_succeeds_when_qemu_says_running(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        seen = runner.seen(machine_id)
        assert (seen.phase, seen.run_state, seen.incarnation) == (MachinePhase.ACTIVE, "running", 1)


async def test_that_a_guest_was_seen_to_run_is_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, confirmed = MachineStore.save, asyncio.Event()

    async def watched(store: MachineStore, record: MachineRecord, **how: bool) -> None:
        await save(store, record, **how)
        if record.run is not None and record.run.confirmed:
            confirmed.set()

    monkeypatch.setattr(MachineStore, "save", watched)
    async with world.runner() as runner:
        await runner.running()
        async with asyncio.timeout(DEADLINE_S):
            await confirmed.wait()


async def test_a_repeated_start_changes_nothing(world: World) -> None:
    async with world.runner() as runner:
        machine_id = await runner.running()
        assert (await runner.start(machine_id)).incarnation == 1
        assert len(world.vm_host.spawned) == 1


async def test_a_nic_is_plugged_before_the_guest_runs(world: World) -> None:
    async with world.runner() as runner:
        await runner.running(NETTED)
        commands = world.vm_host.qemu.commands
        assert commands.index("device_add") < commands.index("cont")


async def test_passt_is_started_before_qemu_and_behind_the_guard(world: World) -> None:
    async with world.runner() as runner:
        await runner.running(NETTED)
        assert [request.handle.role for request in world.vm_host.spawned] == [ChildRole.PASST, ChildRole.QEMU]
        assert world.guard.standing


async def test_a_qemu_that_ends_is_an_error_with_its_words(world: World) -> None:
    world.vm_host.dies = 1
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        with pytest.raises(QemuStartError, match="no room at the inn"):
            await runner.start(machine_id)
        seen = runner.seen(machine_id)
        assert seen.phase is MachinePhase.EXITED
        assert seen.exit is not None
        assert (seen.exit.reason, seen.exit.code) == ("QEMU_EXITED", 1)


async def test_a_machine_whose_start_failed_can_be_started(world: World) -> None:
    world.vm_host.dies = 1
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        with pytest.raises(QemuStartError):
            await runner.start(machine_id)
        world.vm_host.dies = None
        assert (await runner.start(machine_id)).run_state == "running"


async def test_a_silent_qemu_is_ended_at_the_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qemu_runner.service.starting.START_DEADLINE_S", 0.2)
    world.vm_host.silent = True
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        with pytest.raises(QemuStartError, match=r"within 0\.2 s"):
            await runner.start(machine_id)
        assert runner.seen(machine_id).phase is MachinePhase.EXITED


async def test_without_qemu_nothing_is_recorded_as_running(world: World) -> None:
    world.vm_host.programs = ("passt",)
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        with pytest.raises(QemuUnavailableError):
            await runner.start(machine_id)
        assert runner.seen(machine_id).phase is MachinePhase.PREPARED


async def test_without_passt_it_is_the_network_that_cannot_be_had(world: World) -> None:
    world.vm_host.programs = ("qemu-system-x86_64",)
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id, NETTED)
        with pytest.raises(NetworkUnavailableError, match="passt"):
            await runner.start(machine_id)
        assert runner.seen(machine_id).phase is MachinePhase.PREPARED
        assert world.vm_host.spawned == []


async def test_a_broken_qemu_is_refused_before_anything_is_spawned(world: World) -> None:
    (offer,) = world.vm_host.hello.qemu
    world.vm_host.hello = replace(world.vm_host.hello, qemu=(replace(offer, error="libfoo.so is missing"),))
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        with pytest.raises(QemuUnavailableError, match="libfoo"):
            await runner.start(machine_id)
        assert world.vm_host.spawned == []


async def test_without_vm_host_the_machine_stays_as_it_is(world: World) -> None:
    world.vm_host.die()
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        with pytest.raises(VmHostUnavailableError):
            await runner.start(machine_id)
        assert runner.seen(machine_id).phase is MachinePhase.PREPARED


async def test_a_machine_larger_than_the_host_is_not_started(world: World) -> None:
    world.memory_mib = 100
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        with pytest.raises(HostCapacityError):
            await runner.start(machine_id)


async def test_what_is_not_there_or_not_prepared_is_not_started(world: World) -> None:
    async with world.runner() as runner:
        with pytest.raises(MachineNotFoundError):
            await runner.start(new_id())
        world.blobs.away = True
        half = new_id()
        with pytest.raises(Exception, match="hung up"):
            await runner.prepare(half)
        with pytest.raises(MachineStateError, match="not prepared"):
            await runner.start(half)
