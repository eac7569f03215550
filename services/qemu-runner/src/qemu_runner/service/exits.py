"""Records that a machine's process has ended, once, whoever noticed."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from qemu_runner.domain.exits import ProcessEnd, Tails, explain_end, explain_loss
from qemu_runner.domain.record import MachineExit, MachineRecord, Run
from qemu_runner.ports import ChildExit, ExitReason
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.networking import Networking
from qemu_runner.store.machine_files import CONSOLE_LOG, QEMU_LOG, MachineFiles

_LOG = logging.getLogger(__name__)
_TAIL_BYTES: Final = 4096


class Exits:
    """Turns ends into exits.

    Args:
        machines: The machines.
        files: Their files, for the last words.
        networking: Where what they had on the bridge is taken back.
    """

    def __init__(self, machines: Machines, files: MachineFiles, networking: Networking) -> None:
        self._machines = machines
        self._files = files
        self._networking = networking

    async def stderr_tail(self, machine: Machine) -> str:
        """Return what QEMU said last."""
        return await self._files.tail(machine.machine_id, QEMU_LOG, _TAIL_BYTES)

    async def record_end(self, machine: Machine, end: ChildExit) -> None:
        """Record an end that vm-host reported; one of an earlier run changes nothing."""
        seen = ProcessEnd(end.code, end.signal, end.reason is ExitReason.HOST_SHUTDOWN, end.ended_at)
        await self._record(machine, end.handle.incarnation, lambda run, tails: explain_end(run, seen, tails))

    async def record_loss(self, machine: Machine, run: Run, boot_id: str) -> None:
        """Record that the vm-host that had the machine is gone."""
        now = datetime.now(UTC)
        await self._record(
            machine, run.incarnation, lambda run, tails: explain_loss(run, boot_id, now, tails)
        )

    async def record_never_started(self, machine: Machine, run: Run) -> None:
        """Take back a run whose process was never spawned."""

        def change(record: MachineRecord) -> MachineRecord:
            if record.run is None or record.run.incarnation != run.incarnation:
                return record
            return record.never_ran()

        await self._machines.update(machine, change)

    async def _record(
        self, machine: Machine, incarnation: int, explain: Callable[[Run, Tails], MachineExit]
    ) -> None:
        if machine.run is None or machine.run.incarnation != incarnation:
            return
        tails = Tails(
            await self.stderr_tail(machine),
            await self._files.tail(machine.machine_id, CONSOLE_LOG, _TAIL_BYTES),
        )

        def change(record: MachineRecord) -> MachineRecord:
            if record.run is None or record.run.incarnation != incarnation:
                return record
            return record.ended(explain(record.run, tails))

        # What is left of the watch belongs to the process that ended.
        live, machine.live = machine.live, None
        if live is not None:
            await live.session.close()
        # Before the end is told: whoever waits for it may bind new ones at once, or attach it anew.
        await self._files.remove_sockets(machine.machine_id)
        await self._networking.detach(machine.machine_id)
        record = await self._machines.update(machine, change)
        if record.exit is not None:
            _LOG.info(
                "machine ended",
                extra={
                    "machine": machine.machine_id,
                    "reason": record.exit.reason,
                    "detail": record.exit.message,
                },
            )
