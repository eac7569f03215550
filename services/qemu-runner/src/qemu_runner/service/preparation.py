"""Makes a machine's files until they match its spec: image, disk, seed, record.

Each step looks first, so a repetition after a crash goes on where the crash was.
"""

from dataclasses import replace

from qemu_runner.domain.arch import ARCHES
from qemu_runner.domain.machine import Layer, MachinePhase, MachineSpec, Seed
from qemu_runner.domain.progress import Transfer
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import (
    ArchUnsupportedError,
    HostCapacityError,
    MachineStateError,
    RunnerError,
    SpecFault,
    SpecInvalidError,
)
from qemu_runner.service.actions import Emit
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.networking import Networking, with_networks
from qemu_runner.service.probe_targets import check_probes
from qemu_runner.store.image_cache import ImageCache
from qemu_runner.store.machine_files import MachineFiles


class UidRange:
    """The uids that machines get, one each; an empty range means the runner's own.

    Args:
        first: The first.
        count: How many.
    """

    def __init__(self, first: int, count: int) -> None:
        self._uids = range(first, first + count)

    def free(self, records: list[MachineRecord]) -> int | None:
        """Return one that no machine has; None where machines have the runner's own.

        Raises:
            HostCapacityError: All are taken.
        """
        if not self._uids:
            return None
        taken = {record.uid for record in records}
        for uid in self._uids:
            if uid not in taken:
                return uid
        raise HostCapacityError("machine uids", 1, 0, "uids")


def check_spec(spec: MachineSpec) -> None:
    """Refuse a spec that no host of this release could carry out.

    Raises:
        SpecInvalidError: With all its faults.
        ArchUnsupportedError: For an architecture that is not known.
    """
    faults = []
    if spec.cpus < 1:
        faults.append(SpecFault("/vm/cpus", "must be at least 1."))
    if spec.memory_mib < 1:
        faults.append(SpecFault("/vm/memory", "must be at least 1 MiB."))
    if spec.disk_bytes < spec.image.virtual_size_bytes:
        needed = -(-spec.image.virtual_size_bytes // 2**20)
        faults.append(SpecFault("/vm/disk", f"the image needs a disk of {needed} MiB at least."))
    if faults:
        raise SpecInvalidError(tuple(faults))
    arch = ARCHES.get(spec.arch)
    if arch is None:
        raise ArchUnsupportedError(spec.arch, "QEMU machines of it are not known.")


class Preparation:
    """Prepares machines.

    Args:
        machines: The machines.
        files: Their files.
        images: Base images on this host.
        networking: Their networks.
        uids: The uids that they get.
    """

    def __init__(
        self,
        machines: Machines,
        files: MachineFiles,
        images: ImageCache,
        networking: Networking,
        uids: UidRange,
    ) -> None:
        self._machines = machines
        self._files = files
        self._images = images
        self._networking = networking
        self._uids = uids

    async def prepare(self, machine: Machine, spec: MachineSpec, seed: Seed, emit: Emit) -> None:
        """Make the machine's files match; its lock must be held.

        Raises:
            MachineStateError: It runs, and the change needs it stopped.
            RunnerError: A spec, image, network or disk does not allow it.
        """
        check_spec(spec)
        spec = with_networks(spec, (await self._networking.resolve(spec)).networks)
        check_probes(spec)
        record = machine.record
        if record is not None and record.phase is MachinePhase.ACTIVE:
            await self._update_active(machine, record, spec)
            return
        record = await self._claim(machine, spec)
        layers = await self._make_disk(record, spec, emit)
        seed_hash = await self._files.make_seed(machine.machine_id, seed, spec.nics, record.uid)
        if ARCHES[spec.arch].firmware:
            await self._files.make_variables(machine.machine_id, record.uid)
        await self._machines.update(
            machine, lambda now: replace(now, prepared=True, layers=layers, seed_hash=seed_hash)
        )

    async def _make_disk(self, record: MachineRecord, spec: MachineSpec, emit: Emit) -> tuple[Layer, ...]:
        if record.layers:
            return await self._files.grow_disk(record.machine_id, record.layers, spec.disk_bytes)
        async with self._images.held(spec.image, lambda done, total: emit(Transfer(done, total))) as base:
            return await self._files.make_disk(
                record.machine_id, spec.image, base, spec.disk_bytes, record.uid
            )

    async def _claim(self, machine: Machine, spec: MachineSpec) -> MachineRecord:
        """Record what the machine is to be, with a uid and an address of its own."""
        async with self._machines.allocation:
            records = [r for r in self._machines.records() if r.machine_id != machine.machine_id]
            await self._networking.check_ports(machine.machine_id, spec, records, bind=True)
            before = machine.record
            if before is not None and before.layers and before.spec.image != spec.image:
                raise MachineStateError(machine.machine_id, "prepared", "its image cannot be changed")
            uid = self._uids.free(records) if before is None else before.uid
            index = None if before is None else before.user_index
            if index is None and spec.user_nic is not None:
                index = self._networking.free_index(records)
            holdings = await self._networking.hold(machine.machine_id, spec, before, records)
            if before is None:
                await self._machines.require_vacant(machine)
                await self._files.create(machine.machine_id, uid)
                record = MachineRecord(
                    machine.machine_id,
                    machine.known_fence,
                    spec,
                    uid=uid,
                    user_index=index,
                    holdings=holdings,
                )
                await self._machines.adopt(machine, record)
                return record
            return await self._machines.update(
                machine,
                lambda now: replace(
                    now,
                    spec=spec,
                    user_index=index,
                    holdings=holdings,
                    prepared=now.prepared and now.spec == spec,
                ),
            )

    async def _update_active(self, machine: Machine, record: MachineRecord, spec: MachineSpec) -> None:
        # What QEMU was started with stays until the next start; names, labels and ports may change now.
        fixed = ("arch", "cpus", "memory_mib", "disk_bytes", "image")
        if any(getattr(record.spec, name) != getattr(spec, name) for name in fixed):
            raise MachineStateError(machine.machine_id, "running", "stop it first to change its hardware")
        if [(nic.network, nic.mac) for nic in record.spec.nics] != [
            (nic.network, nic.mac) for nic in spec.nics
        ]:
            raise MachineStateError(machine.machine_id, "running", "stop it first to change its NICs")
        async with self._machines.allocation:
            if spec.ports != record.spec.ports:
                records = self._machines.records()
                await self._networking.check_ports(machine.machine_id, spec, records, bind=False)
            # Recorded first: cut off here, the next life of this service publishes what is recorded.
            changed = await self._machines.update(machine, lambda now: replace(now, spec=spec))
            try:
                await self._networking.publish(changed)
            except RunnerError:
                await self._machines.update(machine, lambda now: replace(now, spec=record.spec))
                raise
