"""Finds out how the probes of one running machine stand, woken by what changes, never by a clock alone.

Agent and address follow what is observed anyway; console bytes are matched as they come. Connections, GETs
and programs are tried, with pauses that grow, only while everything that events tell of holds and the guest
runs; what changes there ends a pause. What was seen to hold is recorded, so that another life of this service
need not see it again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from qemu_runner.domain.cloud_init import DONE, ERROR, RUNNING, CloudInitReport
from qemu_runner.domain.probe import (
    ATTEMPTED,
    FOLLOWING,
    THROUGH_NETWORK,
    CloudInit,
    CloudInitState,
    Probe,
    ProbeKind,
    ProbeResult,
)
from qemu_runner.readiness.attempts import Agent, Seen, Target, answers, cloud_init_result, connects, exits
from qemu_runner.readiness.cloud_init import cloud_init_report, schema_errors
from qemu_runner.readiness.pause import Pause
from qemu_runner.readiness.serial_match import SerialMatch

# cloud-init prints that it has finished before it writes its result: how long the console's word alone is not
# believed while an agent answers. An emulated guest takes seconds.
_WRITES_WITHIN_S: Final = 30.0
# Whom a wakeup is for, besides the probes by their numbers.
_RESULT: Final = -1
_REPORT: Final = -2
_ALREADY: Final = "held before the runner was restarted"
_NO_WAY: Final = "no address of the guest, and no published port, leads there"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is observed of the machine.

    Attributes:
        running: Whether its guest runs.
        agent: The way to its agent; None while nobody answers there.
        results: How the probes stand, those included that follow what they name.
    """

    running: bool
    agent: Agent | None
    results: tuple[ProbeResult, ...]


class Probing:
    """The probes of one machine.

    Args:
        probes: The contract.
        held: Numbers of probes that held already in this boot.
        target: Where a port of the guest is reached; None: nowhere.
        changed: Called when something else is known.
        record: Awaited with the numbers of the probes that have held in this boot.
        ready: Awaited once when all hold.
    """

    def __init__(
        self,
        probes: tuple[Probe, ...],
        held: tuple[int, ...],
        target: Callable[[int], Target | None],
        changed: Callable[[], None],
        record: Callable[[tuple[int, ...]], Awaitable[None]],
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        self.probes = probes
        self.results = [
            ProbeResult(holds=True, evidence=_ALREADY) if n in held else ProbeResult()
            for n in range(len(probes))
        ]
        self.cloud_init = CloudInitState()
        self.report: CloudInitReport | None = None
        self._target = target
        self._changed = changed
        self._record = record
        self._ready = ready
        self._matches = {
            n: SerialMatch(probe.match)
            for n, probe in enumerate(probes)
            if probe.kind is ProbeKind.SERIAL and n not in held
        }
        self._standing = Standing(False, None, ())
        self._boot = 0
        self._finished_on_console: CloudInitState | None = None
        self._written_by = 0.0
        self._reported = False
        self._news = asyncio.Event()
        self._woken: dict[int, asyncio.Event] = {}

    def observed(self, standing: Standing) -> None:
        """Take what is observed now; what decides whether something is tried wakes who tries."""
        before, self._standing = self._standing, standing
        if self._gate(before) == self._gate(standing):
            # Evidence alone: an attempt must not be the cause of the next.
            self._news.set()
        else:
            self.nudge()

    def nudge(self) -> None:
        """Try now what waits to be tried: something happened in the guest."""
        self._news.set()
        for event in self._woken.values():
            event.set()

    def console(self, chunk: bytes) -> None:
        """Take the console's next bytes."""
        for number, match in list(self._matches.items()):
            line = match.feed(chunk)
            if line is not None:
                del self._matches[number]
                self._saw(number, Seen(True, f"the console said {line!r}"))
        # Servers often tell that they have started; a program would burden the guest at each line.
        for number, probe in enumerate(self.probes):
            if probe.kind in THROUGH_NETWORK and number in self._woken:
                self._woken[number].set()

    def cloud_init_finished(self, *, failed: bool) -> None:
        """Take the console's word that cloud-init has ended."""
        self._written_by = time.monotonic() + _WRITES_WITHIN_S
        self._finished_on_console = CloudInitState(
            CloudInit.ERROR if failed else CloudInit.DONE,
            "The guest's console says that it ended with an error." if failed else "",
        )
        self.nudge()

    def cloud_init_runs(self) -> None:
        """Take the console's word that a stage of cloud-init has begun."""
        if self.report is None:
            self.report = CloudInitReport(RUNNING)
            self._changed()

    def begin_anew(self) -> None:
        """Forget everything: the guest boots again."""
        self._boot += 1
        self.results = [ProbeResult() for _ in self.probes]
        self.cloud_init = CloudInitState()
        self._finished_on_console = None
        self.report, self._reported = None, False
        self._matches = {
            n: SerialMatch(probe.match)
            for n, probe in enumerate(self.probes)
            if probe.kind is ProbeKind.SERIAL
        }
        self._changed()
        self.nudge()

    async def run(self) -> None:
        """Find out for ever."""
        async with asyncio.TaskGroup() as group:
            for number, probe in enumerate(self.probes):
                if probe.kind in ATTEMPTED:
                    group.create_task(self._try(number, probe))
            group.create_task(self._learn_cloud_init())
            group.create_task(self._learn_report())
            group.create_task(self._keep())

    # -- what is tried ---------------------------------------------------------------------------------------

    async def _try(self, number: int, probe: Probe) -> None:
        pause = Pause(self._wakeup(number))
        while True:
            if self.results[number].holds or not self._may_try(probe):
                pause.reset()
                await pause.until_woken()
                continue
            boot = self._boot
            seen = await self._attempt(probe)
            if boot == self._boot:
                self._saw(number, seen)
            if not seen.holds:
                await pause.grown()

    def _may_try(self, probe: Probe) -> bool:
        standing = self._standing
        if not standing.running or (probe.kind is ProbeKind.EXEC and standing.agent is None):
            return False
        return all(self._told_by_events(standing))

    def _told_by_events(self, standing: Standing) -> tuple[bool, ...]:
        return tuple(
            result.holds
            for probe, result in zip(self.probes, standing.results, strict=False)
            if probe.kind not in ATTEMPTED
        )

    def _gate(self, standing: Standing) -> tuple[object, ...]:
        return standing.running, standing.agent is not None, self._told_by_events(standing)

    async def _attempt(self, probe: Probe) -> Seen:
        if probe.kind is ProbeKind.EXEC:
            agent = self._standing.agent
            return Seen(False, "no agent answers") if agent is None else await exits(agent, probe)
        target = self._target(probe.port)
        if target is None:
            return Seen(False, _NO_WAY)
        return await (connects(target) if probe.kind is ProbeKind.TCP else answers(target, probe))

    # -- cloud-init ------------------------------------------------------------------------------------------

    async def _learn_cloud_init(self) -> None:
        """Ask the guest for cloud-init's result once the console tells that there is one, or a probe asks."""
        wanted = any(probe.kind is ProbeKind.CLOUD_INIT for probe in self.probes)
        pause = Pause(self._wakeup(_RESULT))
        while True:
            agent, word = self._standing.agent, self._finished_on_console
            settled = self.cloud_init.result is not CloudInit.UNSEEN
            if settled or (word is None and not (wanted and agent is not None and self._standing.running)):
                pause.reset()
                await pause.until_woken()
                continue
            boot = self._boot
            state = None if agent is None else await cloud_init_result(agent)
            if boot != self._boot:
                continue
            if state is None and (self._standing.agent is None or self._is_written()):
                state = word
            if state is None:
                await pause.grown()
                continue
            self._settle(state)

    async def _learn_report(self) -> None:
        """Ask the guest what cloud-init tells of itself, once it has ended and an agent answers.

        One answer is enough. A guest whose answer makes no sense is asked again when an agent connects again.
        """
        woken = self._wakeup(_REPORT)
        pause = Pause(woken)
        asked: Agent | None = None
        while True:
            agent = self._standing.agent
            ended = self.cloud_init.result is not CloudInit.UNSEEN
            if self._reported or not ended or agent is None or agent is asked or not self._standing.running:
                asked = asked if agent is not None else None
                await woken.wait()
                woken.clear()
                continue
            boot, asked = self._boot, agent
            report = await cloud_init_report(agent)
            if boot != self._boot:
                asked = None
            elif report is not None and report.state == RUNNING and not self._is_written():
                asked = None
                await pause.grown()
            elif report is not None:
                if report.state == RUNNING:
                    report = replace(report, state=self._word())
                self._reported, self.report = True, report
                if report.state == ERROR and self.cloud_init.result is CloudInit.DONE:
                    self._fail_after_all("; ".join(report.errors))
                self._changed()
                if report.doubts_schema and (faults := await schema_errors(agent)) and boot == self._boot:
                    self.report = replace(report, schema_errors=faults).bounded()
                    self._changed()

    def _is_written(self) -> bool:
        """Tell whether what is not there now does not come any more."""
        return time.monotonic() >= self._written_by

    def _word(self) -> str:
        return DONE if self.cloud_init.result is CloudInit.DONE else ERROR

    def _settle(self, state: CloudInitState) -> None:
        self.cloud_init = state
        if not self._reported:
            # As far as that tells; the agent may tell more.
            self.report = CloudInitReport(self._word(), errors=(state.detail,) if state.detail else ())
        self._wakeup(_REPORT).set()
        done = state.result is CloudInit.DONE
        for number, probe in enumerate(self.probes):
            if probe.kind is ProbeKind.CLOUD_INIT:
                self._saw(number, Seen(done, "finished" if done else f"failed: {state.detail}"))
        self._changed()

    def _fail_after_all(self, errors: str) -> None:
        """Take back what the console's word alone has settled before an agent was there to ask."""
        self.cloud_init = CloudInitState(CloudInit.ERROR, errors)
        for number, probe in enumerate(self.probes):
            if probe.kind is ProbeKind.CLOUD_INIT:
                self.results[number] = ProbeResult(False, f"failed: {errors}")

    # -- what is known ---------------------------------------------------------------------------------------

    def _saw(self, number: int, seen: Seen) -> None:
        before = self.results[number]
        if before.holds or (before.holds, before.evidence) == (seen.holds, seen.evidence):
            return
        self.results[number] = ProbeResult(
            seen.holds, seen.evidence, datetime.now(UTC) if seen.holds else None
        )
        self._changed()

    async def _keep(self) -> None:
        """Record what holds, and tell once when all does."""
        recorded: tuple[int, ...] = ()
        told_of = -1
        while True:
            self._news.clear()
            boot = self._boot
            held = tuple(
                n
                for n, result in enumerate(self.results)
                if result.holds and self.probes[n].kind not in FOLLOWING
            )
            if held != recorded:
                recorded = held
                await self._record(held)
            standing = self._standing.results
            if told_of != boot and standing and all(result.holds for result in standing):
                told_of = boot
                await self._ready()
            await self._news.wait()

    def _wakeup(self, number: int) -> asyncio.Event:
        return self._woken.setdefault(number, asyncio.Event())
