"""Machines of another architecture, without processes: what is refused, and UEFI variables of their own."""

from dataclasses import replace

import pytest
from qemu_runner.domain.arch import VARIABLES_BYTES
from qemu_runner.errors import ArchUnsupportedError, QemuUnavailableError
from runner_fakes import SPEC, World, new_id
from vm_host_fake import OFFER

ARM = replace(SPEC, arch="aarch64")
ARM_OFFER = replace(
    OFFER,
    arch="aarch64",
    program="qemu-system-aarch64",
    machine_types=("virt-7.2",),
    machine_aliases={"virt": "virt-7.2"},
)


def offer_both(world: World) -> None:
    world.vm_host.hello = replace(world.vm_host.hello, qemu=(OFFER, ARM_OFFER))


async def test_a_plan_without_the_emulator_says_what_to_install(world: World) -> None:
    missing = replace(ARM_OFFER, error="qemu-system-aarch64 is not installed")
    world.vm_host.hello = replace(world.vm_host.hello, qemu=(OFFER, missing))
    async with world.runner() as runner:
        with pytest.raises(QemuUnavailableError, match="Debian's package qemu-system-arm"):
            await runner.services.planning.plan(new_id(), ARM)


async def test_an_unknown_architecture_is_refused(world: World) -> None:
    async with world.runner() as runner:
        with pytest.raises(ArchUnsupportedError, match="riscv64"):
            await runner.services.planning.plan(new_id(), replace(SPEC, arch="riscv64"))


async def test_a_foreign_machine_is_started_by_its_own_program(world: World) -> None:
    offer_both(world)
    world.vm_host.programs = (*world.vm_host.programs, "qemu-system-aarch64")
    async with world.runner() as runner:
        machine_id = await runner.running(ARM)
        assert world.vm_host.spawned[-1].argv[0] == "qemu-system-aarch64"
        machine = runner.services.machines.find(machine_id)
        assert machine is not None
        assert machine.run is not None
        assert machine.run.machine_type == "virt-7.2"


async def test_firmware_variables_are_made_once_and_kept(world: World) -> None:
    offer_both(world)
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id, ARM)
        variables = world.directory / "machines" / machine_id / "vars.fd"
        assert variables.stat().st_size == VARIABLES_BYTES
        assert variables.stat().st_mode & 0o777 == 0o600
        with variables.open("r+b") as file:
            file.write(b"boot order")
        await runner.prepare(machine_id, replace(ARM, memory_mib=SPEC.memory_mib + 1))
        with variables.open("rb") as file:
            assert file.read(10) == b"boot order"


async def test_a_machine_whose_firmware_is_qemus_own_has_no_variables(world: World) -> None:
    async with world.runner() as runner:
        machine_id = new_id()
        await runner.prepare(machine_id)
        assert not (world.directory / "machines" / machine_id / "vars.fd").exists()
