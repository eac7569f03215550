"""Says what a prepare and a start would do, and refuses what they would refuse; changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from qemu_runner.domain.accelerator import TCG, AcceleratorMode
from qemu_runner.domain.arch import ARCHES
from qemu_runner.domain.argv import Launch, build_argv
from qemu_runner.domain.machine import DiskFormat, Layer, MachineId, MachineSpec
from qemu_runner.errors import VmHostUnavailableError
from qemu_runner.service.capacity import Capacity
from qemu_runner.service.hardware import choose_hardware
from qemu_runner.service.machines import Machines
from qemu_runner.service.nat_cards import require_own_macs
from qemu_runner.service.network_choice import Choice
from qemu_runner.service.networking import Networking, with_networks
from qemu_runner.service.preparation import check_spec
from qemu_runner.service.probe_targets import check_probes
from qemu_runner.service.vm_host_link import VmHostLink
from qemu_runner.store.machine_files import BASE, OVERLAY, MachineFiles


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen.

    Attributes:
        qemu_argv: QEMU's argument list, with `{fd:NAME}` for descriptors.
        accelerator: "kvm" or "tcg".
        warnings: What the caller should know.
        networks: What each NIC's network resolves to.
        addresses: What is set aside for each NIC; empty where nothing is.
    """

    qemu_argv: tuple[str, ...]
    accelerator: str
    warnings: tuple[str, ...]
    networks: tuple[str, ...]
    addresses: tuple[str, ...] = ()


class Planning:
    """Plans machines.

    Args:
        machines: The machines.
        files: Where their files would lie.
        networking: Their networks.
        capacity: What the host has left.
        newest_link: Returns the vm-host that new machines go to.
        accelerator: The setting.
        extra_arguments: The operator's own words for QEMU.
    """

    def __init__(
        self,
        machines: Machines,
        files: MachineFiles,
        networking: Networking,
        capacity: Capacity,
        newest_link: Callable[[], VmHostLink],
        accelerator: AcceleratorMode,
        extra_arguments: tuple[str, ...],
    ) -> None:
        self._machines = machines
        self._files = files
        self._networking = networking
        self._capacity = capacity
        self._newest_link = newest_link
        self._accelerator = accelerator
        self._extra = extra_arguments

    async def plan_network(self, machine_id: MachineId, spec: MachineSpec) -> Plan:
        """Return what the networks would be; nothing else is looked at.

        Raises:
            RunnerError: As a prepare would, for the networks' sake.
        """
        _, choice = await self._networks(machine_id, spec)
        return Plan((), "", choice.warnings, choice.networks)

    async def plan(self, machine_id: MachineId, spec: MachineSpec, *, reserve: bool = False) -> Plan:
        """Return what would happen; with `reserve`, set addresses aside for a prepare that follows.

        Raises:
            RunnerError: As a prepare and a start would.
        """
        check_spec(spec)
        spec, choice = await self._networks(machine_id, spec)
        self._capacity.require(spec)
        hello = await self._newest_link().current_hello()
        if hello.stopping:
            raise VmHostUnavailableError("it is stopping")
        arch = ARCHES[spec.arch]
        found = self._machines.find(machine_id)
        before = "" if found is None or found.record is None else found.record.machine_type
        hardware = choose_hardware(hello, arch, self._accelerator, before)
        argv = build_argv(
            Launch(
                machine_id=machine_id,
                arch=arch,
                machine_type=hardware.machine_type,
                accelerator=hardware.accelerator,
                cpu_model=hardware.cpu_model,
                cpus=spec.cpus,
                memory_mib=spec.memory_mib,
                directory=PurePosixPath(self._files.directory(machine_id)),
                layers=(
                    Layer(OVERLAY, DiskFormat.QCOW2),
                    Layer(BASE, spec.image.format, spec.image.stored_digest),
                ),
                nic_netdevs=self._networking.netdev_options(
                    spec, self._user_index(machine_id, spec), "{fd:passt}"
                ),
                extra=self._extra,
            )
        )
        warnings = list(choice.warnings)
        if hardware.accelerator == TCG:
            warnings.append("The guest is emulated (TCG), many times slower than with KVM.")
        if not hello.root:
            warnings.append("vm-host has no root: QEMU keeps the uid of whoever started it.")
        if self._extra:
            words = " ".join(self._extra)
            warnings.append(f"The settings of this host add QEMU arguments: {words}")
        addresses: tuple[str, ...] = ()
        if reserve:
            async with self._machines.allocation:
                others = [r for r in self._machines.records() if r.machine_id != machine_id]
                addresses = await self._networking.set_aside(machine_id, spec, others)
        return Plan(argv, hardware.accelerator, tuple(warnings), choice.networks, addresses)

    def _user_index(self, machine_id: MachineId, spec: MachineSpec) -> int | None:
        """Return the number that the machine has, or would get."""
        if spec.user_nic is None:
            return None
        found = self._machines.find(machine_id)
        record = None if found is None else found.record
        if record is not None and record.user_index is not None:
            return record.user_index
        return self._networking.free_index(self._machines.records())

    async def _networks(self, machine_id: MachineId, spec: MachineSpec) -> tuple[MachineSpec, Choice]:
        choice = await self._networking.resolve(spec)
        spec = with_networks(spec, choice.networks)
        check_probes(spec)
        found = self._machines.find(machine_id)
        running = found is not None and found.run is not None
        records = self._machines.records()
        await self._networking.check_ports(machine_id, spec, records, bind=not running)
        others = [record for record in records if record.machine_id != machine_id]
        require_own_macs(spec, others)
        await self._networking.require_addresses(spec, others)
        return spec, choice
