"""Follows a guest's boot on its console: phases with the guest's own times, and trouble that it tells of."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from qemu_runner.domain.boot import (
    CLOUD_INIT,
    KERNEL,
    PANIC,
    BootClock,
    ConsoleParser,
    Milestone,
    ReachedPhase,
)
from qemu_runner.domain.record import MachineRecord, Run
from qemu_runner.domain.trouble import Sighting, TroubleParser, counted, is_news
from qemu_runner.errors import RunnerError
from qemu_runner.readiness.probing import Probing
from qemu_runner.service.consoles import Console
from qemu_runner.service.machines import Machine, Machines

_LOG = logging.getLogger(__name__)
_KERNEL_LINE: Final = b"] Linux version "
# Far more than a firmware takes from its first instruction to its own reset.
_SAME_REBOOT_S: Final = 10.0

PhaseSink = Callable[[MachineRecord, Run, ReachedPhase], None]
"""Is told each phase once, when it is complete."""


class Boot:
    """One boot of one machine.

    Args:
        machines: Where phases are recorded.
        machine: Whose boot; it has a run.
        run: The run.
        console: Its console.
        sink: Is told each phase.
        probing: Is told the console's bytes, and when cloud-init has ended.
        guest_changed: Called when the guest says that its address or its name may be another.
        panicked: Awaited when the console's last word is that the kernel has panicked.
    """

    def __init__(
        self,
        machines: Machines,
        machine: Machine,
        run: Run,
        console: Console,
        sink: PhaseSink,
        probing: Probing,
        guest_changed: Callable[[], None],
        panicked: Callable[[], Awaitable[None]],
    ) -> None:
        self._machines = machines
        self._machine = machine
        self._console = console
        self._sink = sink
        self._probing = probing
        self._guest_changed = guest_changed
        self._panicked = panicked
        self._panic = False
        self._reset: tuple[float, int] | None = None
        self._incarnation = run.incarnation
        # Of the boot whose output is read next; the ones before it are over.
        self._offset = max(run.console_offset, run.boot_offset)
        record = machine.require()
        # A record of before there was the offset counts from the run's first boot.
        self._boots = record.boots if run.boot_offset else run.first_boot
        self._kernels = 0
        self._last_kernel_at = 0
        self._caught_up = False
        self._parser = ConsoleParser()
        self._troubles = run.troubles
        self._troubles_from = 0
        self._trouble_parser = TroubleParser(self._offset)
        begun = record.boot_time if run.boot_offset else None
        self._clock = BootClock(begun or run.start_time, run.kernel_start, run.phases)

    async def follow(self) -> None:
        """Read the console as it grows, from the present boot's first byte; never returns."""
        with self._console.growing() as grown:
            self._offset = await self._console.resume(self._offset)
            self._trouble_parser = TroubleParser(self._offset)
            while True:
                grown.clear()
                while chunk := await self._console.log.read_chunk(offset := self._offset):
                    if offset != self._offset:
                        # The guest has begun to boot again meanwhile; what it said before is over.
                        continue
                    self._offset += len(chunk)
                    await self._take(chunk)
                    await self._console.note(self._offset)
                await self._console.trim(self._offset)
                if not self._caught_up:
                    self._caught_up = True
                    await self._count_missed()
                if self._panic:
                    self._panic = False
                    await self._panicked()
                await self._grown(grown)

    async def begun_again(self, *, by_guest: bool) -> None:
        """Record that the guest boots again: what it prints from now on belongs to another boot.

        SeaBIOS that was reset finds itself in the memory of the boot before, and resets the machine once
        more, or twice. So a reset that the guest made soon after another one, and before it has printed
        anything or opened a port, is of the same reboot.
        """
        moment, offset = datetime.now(UTC), await self._console.log.size()
        before, now_s = self._reset, asyncio.get_running_loop().time()
        if by_guest and before is not None and now_s - before[0] < _SAME_REBOOT_S and offset == before[1]:
            return
        self._reset = (now_s, offset)
        self._offset = offset
        self._kernels, self._panic = 0, False
        self._parser = ConsoleParser()
        self._troubles, self._trouble_parser = (), TroubleParser(offset)
        self._clock = BootClock(moment, None, ())
        self._probing.begin_anew()
        await self._update("boot", lambda record: record.booted(moment, offset))

    def port_opened(self) -> None:
        """Take it that the guest has booted: it has opened a port, if it has printed nothing."""
        self._reset = None

    async def agent_answered(self) -> None:
        """Record the agent's first answer."""
        await self._record(self._clock.agent_answered(datetime.now(UTC)))

    async def ready(self) -> None:
        """Record that all probes hold."""
        await self._record(self._clock.ready(datetime.now(UTC)))

    async def _take(self, chunk: bytes) -> None:
        self._probing.console(chunk)
        parser = self._trouble_parser
        sightings = parser.feed(chunk)
        for milestone in self._parser.feed(chunk):
            if milestone.name == KERNEL:
                self._kernel_begins(chunk)
            await self._reached(milestone)
        if sightings and parser is self._trouble_parser:
            await self._saw_trouble([seen for seen in sightings if seen.offset >= self._troubles_from])

    async def _grown(self, grown: asyncio.Event) -> None:
        """Wait until the console has grown; what has come may have to wait for its time to be noted."""
        while (pause_s := await self._console.note(self._offset)) is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await grown.wait()
                    return
        await grown.wait()

    async def _saw_trouble(self, sightings: list[Sighting]) -> None:
        before = self._troubles
        self._troubles = now = counted(before, sightings, datetime.now(UTC))
        if not is_news(before, now):
            return

        def change(record: MachineRecord) -> MachineRecord:
            if record.run is None or now is not self._troubles:
                # Of a boot that is over by now.
                return record
            return record.with_run(replace(record.run, troubles=now))

        await self._update("trouble", change)

    def _kernel_begins(self, chunk: bytes) -> None:
        """Count a kernel; a second one before all was read is of a boot that nobody has told of."""
        self._kernels += 1
        begun = max(0, chunk.rfind(_KERNEL_LINE))
        self._last_kernel_at = self._offset - len(chunk) + begun
        if self._kernels > 1 and not self._caught_up:
            self._clock = BootClock(datetime.now(UTC), None, ())
            self._troubles, self._troubles_from = (), self._last_kernel_at
            self._probing.begin_anew()
            self._probing.console(chunk[begun:])

    async def _reached(self, milestone: Milestone) -> None:
        if milestone.name == PANIC:
            self._panic = True
            return
        if milestone.name == KERNEL:
            # Whatever the kernel before it said last: another one runs.
            self._panic = False
        await self._record(self._clock.reached(milestone, datetime.now(UTC)))
        if milestone.is_cloud_init_stage:
            self._probing.cloud_init_runs()
        if milestone.name == CLOUD_INIT:
            self._probing.cloud_init_finished(failed=milestone.failed)
        if milestone.is_network or milestone.name == CLOUD_INIT:
            self._guest_changed()
            self._probing.nudge()

    async def _count_missed(self) -> None:
        """Count the boots that nobody heard of, by the kernels that the console has seen begin."""
        last, offset, moment = self._boots + self._kernels - 1, self._last_kernel_at, datetime.now(UTC)
        phases, kernel_start = tuple(self._clock.phases), self._clock.kernel_start
        troubles = self._troubles

        def booted(record: MachineRecord) -> MachineRecord:
            if record.run is None or record.boots >= last:
                return record
            run = replace(
                record.run,
                boot_offset=offset,
                phases=phases,
                kernel_start=kernel_start,
                held=(),
                troubles=troubles,
            )
            return replace(record, boots=last, boot_time=moment, run=run)

        await self._update("boots", booted)

    async def _record(self, reached: list[ReachedPhase]) -> None:
        if not reached:
            return
        clock = self._clock
        phases, kernel_start = tuple(clock.phases), clock.kernel_start

        def change(record: MachineRecord) -> MachineRecord:
            if record.run is None or clock is not self._clock:
                # Of a boot that is over by now.
                return record
            return record.with_run(replace(record.run, phases=phases, kernel_start=kernel_start))

        record = await self._update("boot phase", change)
        # Spans belong to the call that started the machine; the guest's own reboots are nobody's.
        if record is not None and record.run is not None and record.boots == record.run.first_boot:
            for phase in reached:
                self._sink(record, record.run, phase)

    async def _update(
        self, what: str, change: Callable[[MachineRecord], MachineRecord]
    ) -> MachineRecord | None:
        """Change the record of the run that this is; None if that is over, or nothing could be written."""

        def mine(record: MachineRecord) -> MachineRecord:
            if record.run is None or record.run.incarnation != self._incarnation:
                return record
            return change(record)

        try:
            record = await self._machines.update(self._machine, mine)
        except RunnerError as exc:
            # Phases are for people; a full disk must not end what watches the machine.
            _LOG.warning(
                "not recorded",
                extra={"machine": self._machine.machine_id, "what": what, "error": str(exc)},
            )
            return None
        return record if record.run is not None and record.run.incarnation == self._incarnation else None
