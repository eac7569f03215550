"""Brings records and vm-host's table together: running machines found again, ends learned, losses proved.

A machine counts as lost only if vm-host proves it: by an exit, or by being another vm-host than the one
that had the machine. It never ends a process and never removes a file.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from qemu_runner.domain.machine import MachineId
from qemu_runner.domain.observation import PASST_EXITED
from qemu_runner.domain.record import Run
from qemu_runner.errors import MonitorError, RunnerError, VmHostUnavailableError
from qemu_runner.monitor import QmpSession
from qemu_runner.ports import (
    ChildExit,
    ChildHandle,
    ChildRecord,
    ChildRole,
    StopRecord,
    VmHostError,
)
from qemu_runner.service.exits import Exits
from qemu_runner.service.hub import Hub
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.tasks import Tasks
from qemu_runner.service.vm_host_link import VmHostLink
from qemu_runner.service.watching import Watching
from qemu_runner.store.machine_files import MachineFiles

_LOG = logging.getLogger(__name__)
_ATTACH_S: Final = 10.0
_RETRY_FIRST_S: Final = 1.0
_RETRY_MOST_S: Final = 30.0


class Adoption:
    """Listens to the links of all vm-hosts.

    Args:
        machines: The machines.
        files: Their files.
        exits: Where ends are recorded.
        watching: Begins to watch what runs.
        hub: Is told that the host changed.
        link_of: Returns the link to the vm-host of a run.
        tasks: Owner of what is tried again.
    """

    def __init__(
        self,
        machines: Machines,
        files: MachineFiles,
        exits: Exits,
        watching: Watching,
        hub: Hub,
        link_of: Callable[[Run], VmHostLink],
        tasks: Tasks,
    ) -> None:
        self._machines = machines
        self._files = files
        self._exits = exits
        self._watching = watching
        self._hub = hub
        self._link_of = link_of
        self._tasks = tasks
        self._foreign_on: dict[MachineId, VmHostLink] = {}

    async def connected(self, link: VmHostLink, children: tuple[ChildRecord, ...]) -> None:
        """Compare what vm-host has with what is recorded."""
        self._hub.node_changed()
        by_handle = {child.handle: child for child in children}
        for child in children:
            if child.exit is not None:
                await self.ended(link, child.exit)
        self._look_for_foreign(link, children)
        mine = [machine for machine in self._machines if _is_on(machine, link)]
        await asyncio.gather(*(self._settle(machine, link, by_handle) for machine in mine))

    async def ended(self, link: VmHostLink, end: ChildExit) -> None:
        """Record an end, then let vm-host forget it."""
        machine = self._machines.find(MachineId(end.handle.machine_id))
        try:
            if machine is not None and _is_on(machine, link) and _concerns(machine, end.handle):
                if end.handle.role is ChildRole.PASST:
                    # Kept at vm-host until QEMU has ended: the next life of this service wants to know too.
                    self._network_lost(machine)
                    return
                await self._exits.record_end(machine, end)
                await _forget(
                    link, ChildHandle(end.handle.machine_id, ChildRole.PASST, end.handle.incarnation)
                )
            elif machine is not None and machine.record is None and end.handle.role is ChildRole.QEMU:
                # Of a machine whose record is lost; somebody may be deleting it.
                machine.ended.set()
            await _forget(link, end.handle)
        except (RunnerError, OSError) as exc:
            # Not acknowledged, so vm-host still knows.
            _LOG.error("exit not recorded", extra={"machine": end.handle.machine_id, "error": str(exc)})
            if machine is not None:
                self._tasks.begin(self._settle_later(machine), name=f"settle {machine.machine_id}")

    async def lost(self, last_words: StopRecord | None) -> None:
        """Record the ends that a vm-host wrote down when it stopped in good order; else nothing is known."""
        self._hub.node_changed()
        if last_words is None:
            return
        for end in last_words.exits:
            machine = self._machines.find(MachineId(end.handle.machine_id))
            if machine is None or end.handle.role is not ChildRole.QEMU or machine.run is None:
                continue
            if _concerns(machine, end.handle) and machine.run.start_id == last_words.start_id:
                await self._exits.record_end(machine, end)

    async def settle(self, machine: Machine) -> None:
        """Ask vm-host what became of the machine's process, and record it.

        Raises:
            VmHostUnavailableError: It cannot be asked.
        """
        if machine.run is None:
            return
        link = self._link_of(machine.run)
        try:
            children = await link.connection.list_children()
        except VmHostError as exc:
            raise VmHostUnavailableError(str(exc)) from exc
        await self._settle(machine, link, {child.handle: child for child in children})

    async def monitor_lost(self, machine: Machine) -> None:
        """Find out whether the machine has ended with its monitor; if not, watch it again."""
        await self._settle_later(machine)

    async def _settle_later(self, machine: Machine) -> None:
        """Settle until the machine is watched or has ended; one whose vm-host is away waits for that."""
        if machine.settling:
            return
        machine.settling = True
        pause_s = _RETRY_FIRST_S
        try:
            while machine.run is not None and machine.live is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await machine.ended.wait()
                await self.settle(machine)
                pause_s = min(pause_s * 2, _RETRY_MOST_S)
        except VmHostUnavailableError as exc:
            _LOG.info("settling waits for vm-host", extra={"machine": machine.machine_id, "error": str(exc)})
        finally:
            machine.settling = False

    async def _settle(
        self, machine: Machine, link: VmHostLink, children: dict[ChildHandle, ChildRecord]
    ) -> None:
        run, hello = machine.run, link.hello
        if run is None or hello is None:
            return
        try:
            child = children.get(ChildHandle(machine.machine_id, ChildRole.QEMU, run.incarnation))
            if child is not None and child.exit is not None:
                await self.ended(link, child.exit)
            elif child is not None:
                await self._attach(machine, run, children)
            elif run.start_id != hello.start_id:
                await self._exits.record_loss(machine, run, hello.boot_id)
            elif not machine.bringing_up:
                # Recorded, and never spawned: the service died between the two.
                await self._exits.record_never_started(machine, run)
        except RunnerError as exc:
            _LOG.error("machine not settled", extra={"machine": machine.machine_id, "error": str(exc)})
            if machine.live is None:
                self._tasks.begin(self._settle_later(machine), name=f"settle {machine.machine_id}")

    async def _attach(self, machine: Machine, run: Run, children: dict[ChildHandle, ChildRecord]) -> None:
        """Watch a living process that this service does not watch yet."""
        if machine.live is not None or machine.bringing_up:
            # Somebody is at it: a start in flight opens the monitor itself.
            return
        passt = children.get(ChildHandle(machine.machine_id, ChildRole.PASST, run.incarnation))
        if passt is not None and passt.exit is not None:
            self._network_lost(machine)
        path = self._files.directory(machine.machine_id) / "qmp"
        session = await QmpSession.open(path, deadline_s=_ATTACH_S, transcript=machine.transcript)
        try:
            await _require_uuid(session, machine.machine_id)
            await self._watching.begin(machine, run, session)
        except BaseException:
            await session.close()
            raise
        _LOG.info("machine adopted", extra={"machine": machine.machine_id, "incarnation": run.incarnation})

    def _look_for_foreign(self, link: VmHostLink, children: tuple[ChildRecord, ...]) -> None:
        """Learn which machines without a record have a process on this vm-host."""
        alive = {child.handle.machine_id for child in children if child.exit is None}
        for machine in self._machines.foreign():
            if machine.machine_id in alive:
                self._foreign_on[machine.machine_id] = link
                machine.ended.clear()
            elif self._foreign_on.get(machine.machine_id, link) is link:
                machine.ended.set()

    def _network_lost(self, machine: Machine) -> None:
        if machine.run is not None:
            machine.lost_network = machine.run.incarnation
        if machine.live is not None:
            machine.live.network_fault = PASST_EXITED
            self._machines.tell(machine)


async def _require_uuid(session: QmpSession, machine_id: MachineId) -> None:
    if await session.uuid() != machine_id:
        raise MonitorError("query-uuid", "another machine answers on this socket")


def _is_on(machine: Machine, link: VmHostLink) -> bool:
    return machine.run is not None and machine.run.vm_host == str(link.socket_path)


def _concerns(machine: Machine, handle: ChildHandle) -> bool:
    return machine.run is not None and machine.run.incarnation == handle.incarnation


async def _forget(link: VmHostLink, handle: ChildHandle) -> None:
    try:
        await link.connection.ack(handle)
    except VmHostError as exc:
        # It is told again with the next connection, and forgotten then.
        _LOG.debug("exit not acknowledged", extra={"machine": handle.machine_id, "error": str(exc)})
