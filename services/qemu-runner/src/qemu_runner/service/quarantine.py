"""Machines that whoever asks does not know: shown with what is there of them, and handed over when told to.

It never ends a process and never removes a file: what nobody knows is somebody's disk.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from qemu_runner.domain.machine import MachineId
from qemu_runner.domain.observation import Observation
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.store.machine_store import MachineStore


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """A machine that the caller did not name.

    Attributes:
        observation: What is seen of it.
        since: When its record, or else its directory, was last written.
        disk_bytes: What its files occupy.
        fault: Why its record cannot be read; empty if it can.
        running: Whether it has a process, or may have one.
    """

    observation: Observation
    since: datetime
    disk_bytes: int
    fault: str
    running: bool


class Quarantine:
    """Tells of unclaimed machines and gives them a new owner.

    Args:
        machines: The machines.
        store: Their records on disk.
    """

    def __init__(self, machines: Machines, store: MachineStore) -> None:
        self._machines = machines
        self._store = store

    async def unclaimed(self, claimed: frozenset[str]) -> list[Unclaimed]:
        """Return the machines that have files here and are not among `claimed`."""
        found = []
        for directory in await self._store.describe(claimed):
            machine_id = MachineId(directory.name)
            machine = self._machines.find(machine_id)
            seen = (
                self._machines.absent(machine_id) if machine is None else self._machines.observation(machine)
            )
            # A record that was put right after this service began is not in use until it begins again.
            fault = directory.fault
            if not fault and (machine is None or machine.record is None):
                fault = "its record came after the runner had started; restart the runner"
            running = machine is not None and not machine.ended.is_set()
            found.append(Unclaimed(seen, directory.written, directory.disk_bytes, fault, running))
        return found

    async def claim(self, machine: Machine, name: str, cluster_id: str, instance_record: str) -> None:
        """Write down whose the machine is now; its lock must be held.

        Raises:
            MachineNotFoundError: It has no record that can be read.
            DiskFullError: It could not be written; nothing changed.
        """
        machine.require()
        await self._machines.update(
            machine,
            lambda now: replace(
                now,
                spec=replace(now.spec, name=name, cluster_id=cluster_id, instance_record=instance_record),
            ),
        )
