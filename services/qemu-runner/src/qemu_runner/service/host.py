"""What the host is like: its size, accelerators, what is left over on it, what is wrong with it."""

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from qemu_runner.domain.accelerator import SPEED_FACTORS, TCG, AcceleratorMode, AcceleratorState, choose
from qemu_runner.domain.arch import ARCHES
from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import VmHostUnavailableError
from qemu_runner.ports import ChildRecord, ChildRole, QemuOffer, VmHostError
from qemu_runner.service.capacity import Capacity, HostSize
from qemu_runner.service.hardware import accelerator_states, find_offer
from qemu_runner.service.machines import Machines
from qemu_runner.service.networking import Networking
from qemu_runner.service.vm_host_link import VmHostLink
from qemu_runner.service.vm_hosts import VmHosts, VmHostView
from qemu_runner.store.host_speed import HostSpeed
from qemu_runner.store.image_cache import ImageCache
from qemu_runner.store.machine_store import MachineStore

_MIB: Final = 2**20
_LISTING_S: Final = 5.0
HOST_ARCH: Final = "x86_64"


@dataclass(frozen=True, slots=True)
class NodeState:
    """The host as it is told to the controller.

    Attributes:
        name: The node's name.
        message: Why no machine can be started; empty if they can.
        qemu_version: Empty where it is not known.
        accelerators: Each with the reason why it cannot be used.
        accelerator: The one that new machines get; empty where it is not known.
        speed_factor: Its speed on this host, 1.0 being hardware virtualisation on the reference's.
        size: What is offered to machines.
        allocated: What running machines hold.
        disk_total_mib: Of the file system that holds the machines.
        disk_free_mib: Free there.
        vm_hosts: Those that are needed, oldest first.
    """

    name: str
    message: str
    qemu_version: str
    accelerators: tuple[AcceleratorState, ...]
    accelerator: str
    speed_factor: float
    size: HostSize
    allocated: HostSize
    disk_total_mib: int
    disk_free_mib: int
    vm_hosts: tuple[VmHostView, ...] = ()


@dataclass(frozen=True, slots=True)
class DependencyState:
    """A vm-host, and whether it answers."""

    name: str
    up: bool
    since: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class HostLeak:
    """Something of ours on the host that no machine claims."""

    kind: str
    name: str
    owner: str
    since: datetime | None = None


class Host:
    """The host of this runner.

    Args:
        node: The node's name.
        state_dir: The runner's state directory.
        machines: The machines.
        store: Their records on disk.
        images: Base images.
        networking: Networks.
        capacity: What is offered and in use.
        vm_hosts: All vm-hosts.
        accelerator: The setting.
        speed: How fast the host is.
        is_busy: Tells whether an action is at work on a machine.
    """

    def __init__(
        self,
        node: str,
        state_dir: Path,
        machines: Machines,
        store: MachineStore,
        images: ImageCache,
        networking: Networking,
        capacity: Capacity,
        vm_hosts: VmHosts,
        accelerator: AcceleratorMode,
        speed: HostSpeed,
        is_busy: Callable[[MachineId], bool],
    ) -> None:
        self._node = node
        self._state_dir = state_dir
        self._machines = machines
        self._store = store
        self._images = images
        self._networking = networking
        self._capacity = capacity
        self._vm_hosts = vm_hosts
        self._accelerator = accelerator
        self._speed = speed
        self._is_busy = is_busy

    async def node(self) -> NodeState:
        """Return what the host is like now."""
        disk = await asyncio.to_thread(shutil.disk_usage, self._state_dir)
        newest = self._vm_hosts.newest()
        hello = newest.hello
        offer = None if hello is None else find_offer(hello, ARCHES[HOST_ARCH])
        if offer is not None and offer.error:
            # It may have been mended meanwhile.
            with suppress(VmHostUnavailableError):
                offer = find_offer(await newest.current_hello(), ARCHES[HOST_ARCH])
        accelerator, message = self._verdict(offer)
        if hello is None:
            message = f"vm-host cannot be reached: {newest.detail}"
        elif hello.stopping:
            message = "vm-host is stopping."
        return NodeState(
            name=self._node,
            message=message,
            qemu_version="" if offer is None else offer.version,
            accelerators=() if offer is None else accelerator_states(offer),
            accelerator=accelerator,
            speed_factor=round(SPEED_FACTORS[accelerator or TCG] * await self._speed.relative(), 3),
            size=self._capacity.size,
            allocated=self._capacity.allocated(),
            disk_total_mib=disk.total // _MIB,
            disk_free_mib=disk.free // _MIB,
            vm_hosts=self._vm_hosts.views(),
        )

    def dependencies(self) -> tuple[DependencyState, ...]:
        """Return each vm-host that is needed and whether it answers."""
        return tuple(
            DependencyState(
                self._vm_hosts.name(link),
                link.hello is not None and not link.hello.stopping,
                link.since,
                "it is stopping" if link.hello is not None and link.hello.stopping else link.detail,
            )
            for link in self._vm_hosts.needed()
        )

    async def leaks(self) -> tuple[HostLeak, ...]:
        """Return what no machine claims.

        Raises:
            VmHostUnavailableError: A vm-host cannot be asked.
            NetworkUnavailableError: The packet filter cannot be asked.
        """
        found = [leak for link in self._vm_hosts.needed() for leak in await self._processes(link)]
        now = datetime.now(UTC)
        for path in await self._store.unknown():
            if not self._is_busy(MachineId(path.name)):
                kind = "directory" if await asyncio.to_thread(path.is_dir) else "file"
                found.append(HostLeak(kind, str(path), self._node, now))
        found += [HostLeak("file", str(path), self._node, now) for path in await self._images.leftovers()]
        left = await self._networking.leaks(
            self._machines.records(),
            [machine.machine_id for machine in self._machines.foreign()],
            may_run_unrecorded=self._machines.may_run_unrecorded,
        )
        return (*found, *(HostLeak(leak.kind, leak.name, leak.owner) for leak in left))

    def _verdict(self, offer: QemuOffer | None) -> tuple[str, str]:
        if offer is None:
            return "", "vm-host may not start QEMU."
        if offer.error:
            return "", f"QEMU cannot be run: {offer.error}"
        try:
            return choose(self._accelerator, accelerator_states(offer)), ""
        except ValueError as exc:
            return "", f"{exc}."

    async def _processes(self, link: VmHostLink) -> list[HostLeak]:
        try:
            async with asyncio.timeout(_LISTING_S):
                children = await link.connection.list_children()
        except (VmHostError, TimeoutError) as exc:
            raise VmHostUnavailableError(str(exc)) from exc
        return [
            HostLeak(
                "process",
                f"{child.handle.role} of {child.handle.machine_id} (incarnation {child.handle.incarnation})",
                str(link.socket_path),
                child.started_at,
            )
            for child in children
            # vm-host ends a passt with its QEMU: one that lives for another moment is none.
            if child.exit is None and child.handle.role is ChildRole.QEMU and not self._claimed(child)
        ]

    def _claimed(self, child: ChildRecord) -> bool:
        machine_id = MachineId(child.handle.machine_id)
        if self._is_busy(machine_id):
            return True
        machine = self._machines.find(machine_id)
        if machine is None or machine.record is None:
            return False
        return machine.run is not None and machine.run.incarnation == child.handle.incarnation


def host_size(cpus: int, memory_mib: int) -> HostSize:
    """Return what is offered to machines: the settings, or else what the host has."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return HostSize(cpus or os.cpu_count() or 1, memory_mib or pages // _MIB)
