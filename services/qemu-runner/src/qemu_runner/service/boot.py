"""Follows a guest's boot on its console and records each phase once, with the guest's own times."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from qemu_runner.domain.boot import (
    CLOUD_INIT,
    KERNEL,
    NETWORK,
    PANIC,
    BootClock,
    ConsoleParser,
    Milestone,
    ReachedPhase,
)
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
        panicked: Awaited when the console's last word is that the kernel has panicked.
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
        panicked: Callable[[], Awaitable[None]],
    ) -> None:
        self._machines = machines
        self._machine = machine
        self._log = log
        self._growth = growth
        self._sink = sink
        self._guest_changed = guest_changed
        self._panicked = panicked
        self._first_boot = run.first_boot
        self._panic = False
        self._incarnation = run.incarnation
        self._offset = run.console_offset
        self._clock = BootClock(run.start_time, run.kernel_start, run.phases)

    async def follow(self) -> None:
        """Read the console as it grows, from the run's first byte; never returns."""
        parser, boots, caught_up = ConsoleParser(), 0, False
        trimmed_at = offset = await self._log.first_kept(self._offset)
        with self._growth.watching(self._log.path) as grown:
            while True:
                grown.clear()
                while chunk := await self._log.read_chunk(offset):
                    offset += len(chunk)
                    for milestone in parser.feed(chunk):
                        boots += milestone.name == KERNEL
                        await self._reached(milestone)
                if offset - trimmed_at > _TRIM_EVERY_BYTES:
                    trimmed_at = offset
                    await self._log.trim()
                if not caught_up:
                    caught_up = True
                    await self._count_missed(boots)
                if self._panic:
                    self._panic = False
                    await self._panicked()
                await grown.wait()

    async def agent_answered(self) -> None:
        """Record the agent's first answer."""
        await self._record(self._clock.agent_answered(datetime.now(UTC)))

    async def _reached(self, milestone: Milestone) -> None:
        if milestone.name == PANIC:
            self._panic = True
            return
        if milestone.name == KERNEL:
            # Whatever the kernel before it said last: another one runs.
            self._panic = False
        await self._record(self._clock.reached(milestone, datetime.now(UTC)))
        if milestone.name in {NETWORK, CLOUD_INIT}:
            self._guest_changed()

    async def _count_missed(self, kernels: int) -> None:
        """Count the boots that nobody heard of, by the kernels that the console has seen begin."""
        last = self._first_boot + kernels - 1

        def counted(record: MachineRecord) -> MachineRecord:
            if record.run is None or record.run.incarnation != self._incarnation or record.boots >= last:
                return record
            return replace(record, boots=last, boot_time=datetime.now(UTC))

        try:
            await self._machines.update(self._machine, counted)
        except RunnerError as exc:
            _LOG.warning("boots not counted", extra={"machine": self._machine.machine_id, "error": str(exc)})

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
