"""Follows a guest's boot on its console and records each phase once, with the guest's own times."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from qemu_runner.domain.boot import CLOUD_INIT, NETWORK, BootClock, ConsoleParser, ReachedPhase
from qemu_runner.domain.record import MachineRecord, Run
from qemu_runner.errors import RunnerError
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.store.console_log import ConsoleLog
from qemu_runner.store.file_growth import FileGrowth

_LOG = logging.getLogger(__name__)
_TRIM_EVERY_BYTES: Final = 1024 * 1024

PhaseSink = Callable[[MachineRecord, Run, ReachedPhase], None]
"""Is told each phase once, when it is complete."""


class Boot:
    """One boot of one machine.

    Args:
        machines: Where phases are recorded.
        machine: Whose boot; it has a run.
        run: The run.
        log: Its console.
        growth: Tells when the console grows.
        sink: Is told each phase.
        guest_changed: Called when the guest says that its address or its name may be another.
    """

    def __init__(
        self,
        machines: Machines,
        machine: Machine,
        run: Run,
        log: ConsoleLog,
        growth: FileGrowth,
        sink: PhaseSink,
        guest_changed: Callable[[], None],
    ) -> None:
        self._machines = machines
        self._machine = machine
        self._log = log
        self._growth = growth
        self._sink = sink
        self._guest_changed = guest_changed
        self._incarnation = run.incarnation
        self._offset = run.console_offset
        self._clock = BootClock(run.start_time, run.kernel_start, run.phases)

    async def follow(self) -> None:
        """Read the console as it grows, from the run's first byte; never returns."""
        parser = ConsoleParser()
        trimmed_at = offset = await self._log.first_kept(self._offset)
        with self._growth.watching(self._log.path) as grown:
            while True:
                grown.clear()
                while chunk := await self._log.read_chunk(offset):
                    offset += len(chunk)
                    for milestone in parser.feed(chunk):
                        await self._record(self._clock.reached(milestone, datetime.now(UTC)))
                        if milestone.name in {NETWORK, CLOUD_INIT}:
                            self._guest_changed()
                if offset - trimmed_at > _TRIM_EVERY_BYTES:
                    trimmed_at = offset
                    await self._log.trim()
                await grown.wait()

    async def agent_answered(self) -> None:
        """Record the agent's first answer."""
        await self._record(self._clock.agent_answered(datetime.now(UTC)))

    async def _record(self, reached: list[ReachedPhase]) -> None:
        if not reached:
            return
        phases, kernel_start = tuple(self._clock.phases), self._clock.kernel_start

        def change(record: MachineRecord) -> MachineRecord:
            if record.run is None or record.run.incarnation != self._incarnation:
                return record
            return record.with_run(replace(record.run, phases=phases, kernel_start=kernel_start))

        try:
            record = await self._machines.update(self._machine, change)
        except RunnerError as exc:
            # Phases are for people; a full disk must not end what watches the machine.
            _LOG.warning(
                "boot phase not recorded", extra={"machine": self._machine.machine_id, "error": str(exc)}
            )
            return
        if record.run is not None and record.run.incarnation == self._incarnation:
            for phase in reached:
                self._sink(record, record.run, phase)
