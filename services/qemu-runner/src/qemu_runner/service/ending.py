"""Ends a machine's process: power button, then QEMU's own `quit`, then SIGKILL by vm-host.

An end is proved by vm-host's word alone; a monitor that falls silent proves nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from qemu_runner.domain.progress import StopStep
from qemu_runner.domain.record import MachineRecord, Run
from qemu_runner.errors import MachineStuckError, MonitorError, VmHostUnavailableError
from qemu_runner.ports import (
    ChildHandle,
    ChildRole,
    ChildSignal,
    RefusalCode,
    VmHostError,
    VmHostRefused,
)
from qemu_runner.service.actions import Emit
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.vm_host_link import VmHostLink

_LOG = logging.getLogger(__name__)
_PRESS_EVERY_S: Final = 2.0
_QUIT_S: Final = 5.0
_KILL_S: Final = 10.0
_MONITOR_S: Final = 2.0

Settle = Callable[[Machine], Awaitable[None]]


class Ending:
    """Ends machines.

    Args:
        machines: The machines.
        link_of: Returns the link to the vm-host of a run.
        settle: Asks vm-host what became of a machine's process.
        links: All vm-hosts.
    """

    def __init__(
        self,
        machines: Machines,
        link_of: Callable[[Run], VmHostLink],
        settle: Settle,
        links: Sequence[VmHostLink],
    ) -> None:
        self._machines = machines
        self._link_of = link_of
        self._settle = settle
        self._links = links

    async def stop(self, machine: Machine, *, force: bool, grace_s: float, emit: Emit) -> None:
        """End the machine's process and wait until it has ended; its lock must be held.

        Without one this is a success at once. The guest gets `grace_s` to power itself down.

        Raises:
            MachineNotFoundError: There is no such machine.
            VmHostUnavailableError: Its end cannot be brought about or proved now.
            MachineStuckError: It outlived SIGKILL.
        """
        record = machine.require()
        if record.run is None:
            return
        await self._machines.update(machine, _ending)
        if not force and grace_s > 0:
            emit(StopStep.POWERDOWN)
            if await self._power_down(machine, grace_s):
                return
        emit(StopStep.QUIT)
        if await self._quit(machine):
            return
        emit(StopStep.KILL)
        await self.kill(machine)

    async def kill(self, machine: Machine, *, asked: bool = True) -> None:
        """End the process by SIGKILL and wait until vm-host says that it has ended.

        Args:
            machine: Whose.
            asked: Whether somebody wanted it stopped; else its end is a failure.

        Raises:
            VmHostUnavailableError: vm-host cannot be asked.
            MachineStuckError: It outlived SIGKILL.
        """
        run = machine.run
        if run is None:
            return
        if asked:
            await self._machines.update(machine, _ending)
        handle = ChildHandle(machine.machine_id, ChildRole.QEMU, run.incarnation)
        try:
            await self._link_of(run).connection.signal(handle, ChildSignal.KILL)
        except VmHostRefused as exc:
            if exc.code not in {RefusalCode.HANDLE_EXITED, RefusalCode.HANDLE_UNKNOWN}:
                raise VmHostUnavailableError(str(exc)) from exc
            await self._settle(machine)
        except VmHostError as exc:
            raise VmHostUnavailableError(str(exc)) from exc
        if not await _ended_within(machine, _KILL_S):
            raise MachineStuckError(machine.machine_id)

    async def end_unrecorded(self, machine: Machine, *, required: bool) -> None:
        """End by SIGKILL what vm-hosts run for a machine whose record is lost; most often that is nothing.

        Args:
            machine: Whose.
            required: Whether a vm-host that cannot be asked is an obstacle.

        Raises:
            VmHostUnavailableError: A vm-host cannot be asked.
            MachineStuckError: A process outlived SIGKILL.
        """
        for link in self._links:
            try:
                await self._end_unrecorded_on(link, machine)
            except (VmHostError, VmHostUnavailableError) as exc:
                if required:
                    raise VmHostUnavailableError(str(exc)) from exc
                _LOG.info("vm-host not asked", extra={"machine": machine.machine_id, "error": str(exc)})

    async def _end_unrecorded_on(self, link: VmHostLink, machine: Machine) -> None:
        for child in await link.connection.list_children():
            handle = child.handle
            if handle.machine_id != machine.machine_id or handle.role is not ChildRole.QEMU or child.exit:
                continue
            machine.ended.clear()
            with suppress(VmHostRefused):
                # Refused is what ended meanwhile; its end is told like any other.
                await link.connection.signal(handle, ChildSignal.KILL)
            if not await _ended_within(machine, _KILL_S):
                raise MachineStuckError(machine.machine_id)

    async def end_passt(self, machine: Machine, run: Run) -> None:
        """End the passt of a run that has no QEMU to end it."""
        handle = ChildHandle(machine.machine_id, ChildRole.PASST, run.incarnation)
        # With --one-off it leaves by itself too, as soon as our ends of its socket are closed.
        with suppress(VmHostError, VmHostUnavailableError):
            await self._link_of(run).connection.signal(handle, ChildSignal.KILL)

    async def _power_down(self, machine: Machine, grace_s: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        while (left_s := until - loop.time()) > 0:
            # A guest that is still booting does not listen yet, so the button is pressed again.
            await self._press(machine)
            if await _ended_within(machine, min(_PRESS_EVERY_S, left_s)):
                return True
        return machine.ended.is_set()

    async def _press(self, machine: Machine) -> None:
        live = machine.live
        if live is None:
            return
        try:
            if live.run_state == "paused":
                # A paused guest cannot hear; its file systems are worth more than its pause.
                await live.session.execute("cont", deadline_s=_MONITOR_S)
            await live.session.execute("system_powerdown", deadline_s=_MONITOR_S)
        except MonitorError as exc:
            _LOG.info("powerdown not delivered", extra={"machine": machine.machine_id, "error": str(exc)})

    async def _quit(self, machine: Machine) -> bool:
        live = machine.live
        if live is None:
            return machine.ended.is_set()
        try:
            await live.session.execute("quit", deadline_s=_MONITOR_S)
        except MonitorError as exc:
            # QEMU may close the monitor before it has answered.
            _LOG.debug("quit not answered", extra={"machine": machine.machine_id, "error": str(exc)})
        return await _ended_within(machine, _QUIT_S)


def _ending(record: MachineRecord) -> MachineRecord:
    return record if record.run is None else record.with_run(replace(record.run, ending=True))


async def _ended_within(machine: Machine, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await machine.ended.wait()
    return machine.ended.is_set()
