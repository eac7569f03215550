"""All machines of this host: their records, what is seen of them, and who may change them.

Owns the one in-memory truth beside machine.json. Two locks a machine: `lock` is held by the one action at
work, `_writing` only while the record is rewritten, so that an exit can be recorded during an action.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from qemu_runner.domain.machine import MachineId, MachinePhase
from qemu_runner.domain.observation import Observation
from qemu_runner.domain.record import MachineRecord, Run
from qemu_runner.errors import MachineNotFoundError, MachineStateError, StaleFenceError
from qemu_runner.readiness.probing import Standing
from qemu_runner.service.hub import Hub
from qemu_runner.service.live import Live
from qemu_runner.service.tasks import settled
from qemu_runner.service.view import Neighbours, UserAddress, observe
from qemu_runner.store.machine_store import MachineStore
from qemu_runner.transcript import Transcript


class Machine:
    """One machine in memory.

    Attributes:
        machine_id: Its id.
        lock: Held by the one action at work on it.
        record: What machine.json holds; None while there is none.
        live: What is seen of its process; None without one, or while nobody could look.
        bringing_up: Whether a start is at work between recording the process and watching it.
        settling: Whether vm-host is being asked again and again what became of the process.
        lost_network: Incarnation whose passt was seen to end.
        tombstone: Fence of a machine without a record.
        foreign: Whether it has files, and no record that can be read.
        users: How many hold this object.
        last_told: What watchers were told last.
        ended: Set while it has no process; waited for by those who end it.
        transcript: What was said on its monitor lately.
    """

    def __init__(self, machine_id: MachineId, record: MachineRecord | None = None) -> None:
        self.machine_id = machine_id
        self.lock = asyncio.Lock()
        self.writing = asyncio.Lock()
        self.record = record
        self.live: Live | None = None
        self.bringing_up = False
        self.settling = False
        self.lost_network = 0
        self.ended = asyncio.Event()
        self.transcript = Transcript()
        self.tombstone = 0
        self.foreign = False
        self.users = 0
        self.last_told: Observation | None = None
        if record is None or record.run is None:
            self.ended.set()

    @property
    def run(self) -> Run | None:
        """Its process, if it has one."""
        return None if self.record is None else self.record.run

    @property
    def known_fence(self) -> int:
        """Highest fence seen."""
        return self.tombstone if self.record is None else self.record.fence

    def require(self) -> MachineRecord:
        """Return the record.

        Raises:
            MachineNotFoundError: There is none.
        """
        if self.record is None:
            raise MachineNotFoundError(self.machine_id)
        return self.record


class Machines:
    """The machines of this host.

    Args:
        store: Where records are kept.
        hub: Who is told of changes.
        user_addresses: Gives the user network's address of an index, for what is shown.
        neighbours: Gives what the host knows of NICs on other bridges, for what is shown.
    """

    def __init__(
        self, store: MachineStore, hub: Hub, user_addresses: UserAddress, neighbours: Neighbours
    ) -> None:
        self._store = store
        self._hub = hub
        self._user_addresses = user_addresses
        self._neighbours = neighbours
        self._machines: dict[MachineId, Machine] = {}
        self._revisions: Final = itertools.count(1)
        self.allocation = asyncio.Lock()
        """Held while something that machines share (a uid, an address, a port) is chosen and recorded."""

    async def load(self) -> None:
        """Read what the last life of this service left."""
        await self._store.create()
        for record in await self._store.load():
            self._machines[record.machine_id] = Machine(record.machine_id, record)
        for machine_id in await self._store.foreign():
            # Never taken for one that is not there: whoever knows it may delete it, and nothing else.
            machine = self._machines[machine_id] = Machine(machine_id)
            machine.foreign = True
            machine.ended.clear()

    def __iter__(self) -> Iterator[Machine]:
        """Iterate over the machines that have a record."""
        return iter([machine for machine in self._machines.values() if machine.record is not None])

    def foreign(self) -> list[Machine]:
        """Return the machines of which nothing is known but that they have files.

        They count as running until a vm-host has said that it runs nothing for them.
        """
        return [machine for machine in self._machines.values() if machine.foreign]

    @property
    def may_run_unrecorded(self) -> bool:
        """Whether one of them may run."""
        return any(not machine.ended.is_set() for machine in self.foreign())

    def records(self) -> list[MachineRecord]:
        """Return all records."""
        return [machine.record for machine in self._machines.values() if machine.record is not None]

    def find(self, machine_id: MachineId) -> Machine | None:
        """Return a machine that has a record, or that somebody works on."""
        return self._machines.get(machine_id)

    @asynccontextmanager
    async def using(self, machine_id: MachineId) -> AsyncIterator[Machine]:
        """Yield the machine, made up in memory if there is none; forgotten again if none came of it."""
        machine = self._machines.get(machine_id)
        if machine is None:
            machine = self._machines[machine_id] = Machine(machine_id)
        machine.users += 1
        try:
            yield machine
        finally:
            machine.users -= 1
            if machine.users == 0 and machine.record is None and not machine.foreign:
                self._machines.pop(machine_id, None)

    async def raise_fence(self, machine: Machine, fence: int) -> None:
        """Keep a fence that is the highest, durably; the machine's lock must be held.

        Raises:
            StaleFenceError: A higher one was seen.
            DiskFullError: It could not be kept, and nothing may be done.
        """
        await self.learn_fence(machine)
        highest = machine.known_fence
        if fence < highest:
            raise StaleFenceError(machine.machine_id, fence, highest)
        if fence == highest:
            return
        if machine.record is None:
            await self._store.bury(machine.machine_id, fence)
            machine.tombstone = fence
        else:
            await self.update(machine, lambda record: replace(record, fence=fence))

    async def learn_fence(self, machine: Machine) -> None:
        """Know the highest fence also of a machine that is gone, for those who only look."""
        if machine.record is None and not machine.tombstone:
            machine.tombstone = await self._store.tombstone(machine.machine_id)

    async def require_vacant(self, machine: Machine) -> None:
        """Check that a machine without a record has no files either.

        Raises:
            MachineStateError: It has; they are somebody's disk.
        """
        if await self._store.is_foreign(machine.machine_id):
            raise MachineStateError(
                machine.machine_id,
                "there without a readable record",
                "restore its machine.json and restart the runner, or delete the machine",
            )

    async def adopt(self, machine: Machine, record: MachineRecord) -> None:
        """Give a machine without a record its first one; its directory must exist."""
        await settled(self._write_first(machine, record))

    async def update(
        self, machine: Machine, change: Callable[[MachineRecord], MachineRecord]
    ) -> MachineRecord:
        """Rewrite the record, durably; what `change` sees is the newest.

        Raises:
            MachineNotFoundError: There is no record.
            DiskFullError: It could not be written; nothing changed.
        """
        return await settled(self._rewrite(machine, change))

    async def bury(self, machine: Machine) -> None:
        """Keep the fence of a machine that is about to lose its directory."""
        await self._store.bury(machine.machine_id, machine.known_fence, leaving=True)

    async def forget(self, machine: Machine) -> None:
        """Drop the record of a machine whose directory is gone."""
        await self._store.replenish()
        machine.tombstone = machine.known_fence
        machine.record = None
        machine.foreign = False
        machine.live = None
        machine.ended.set()
        self.tell(machine)

    def observation(self, machine: Machine) -> Observation:
        """Return what is seen of the machine, with the revision of its last change."""
        found = self._look(machine)
        told = machine.last_told
        if told is not None and replace(told, revision=0) == found:
            return told
        machine.last_told = replace(found, revision=next(self._revisions))
        return machine.last_told

    def tell(self, machine: Machine) -> None:
        """Tell the watchers, if anything changed."""
        before = machine.last_told
        now = self.observation(machine)
        if now is not before:
            self._hub.publish(now)
        live = machine.live
        if live is not None and live.probing is not None:
            live.probing.observed(
                Standing(now.guest_runs, live.guest if now.agent.connected else None, now.probes)
            )

    def tell_all(self) -> None:
        """Tell the watchers of every machine that has changed: something of the host did."""
        for machine in self:
            self.tell(machine)

    def watch(self) -> AsyncIterator[object]:
        """Yield the snapshot of all machines, then every change (see `Hub.watch`)."""
        return self._hub.watch(
            lambda: [
                self.observation(machine)
                for machine in self._machines.values()
                if machine.record is not None or machine.foreign
            ]
        )

    def absent(self, machine_id: MachineId) -> Observation:
        """Return the observation of a machine that is not there."""
        return Observation(machine_id, MachinePhase.ABSENT)

    async def _write_first(self, machine: Machine, record: MachineRecord) -> None:
        async with machine.writing:
            await self._store.save(record, first=True)
            machine.record = record
            await self._store.unbury(machine.machine_id)
        self.tell(machine)

    async def _rewrite(
        self, machine: Machine, change: Callable[[MachineRecord], MachineRecord]
    ) -> MachineRecord:
        async with machine.writing:
            before = machine.require()
            after = change(before)
            if after != before:
                await self._store.save(after)
                machine.record = after
        if after.run is None:
            machine.ended.set()
        else:
            machine.ended.clear()
        self.tell(machine)
        return after

    def _look(self, machine: Machine) -> Observation:
        if machine.record is None:
            phase = MachinePhase.PREPARING if machine.foreign else MachinePhase.ABSENT
            return Observation(machine.machine_id, phase, fence=machine.tombstone)
        return observe(machine.record, machine.live, self._user_addresses, self._neighbours)
