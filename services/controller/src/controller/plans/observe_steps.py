"""The steps of the system's own operations: look again, under a fence, before any state moves."""

import logging
from typing import Final

from controller.domain.lifecycle import LOSSES
from controller.domain.machine import MachinePhase
from controller.domain.verdict import judge
from controller.operations import Look, Permanent, Step, StepContext
from controller.plans.translation import step_errors
from controller.plans.workbench import Workbench

_log = logging.getLogger(__name__)
_LOST: Final = frozenset(event.value for event in LOSSES)


class LookAgain(Step):
    """What the machine is like is known, under this operation's fence; `on_settle` moves the state."""

    name = "look"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        return Look.DONE if "event" in ctx.facts else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        with step_errors():
            machine = await self._bench.look(ctx)
        await self._bench.saw(machine)
        instance = await self._bench.instance(ctx)
        verdict = judge(instance.state, machine)
        if verdict is None:
            await ctx.save_facts(event="", reason="", message="")
        else:
            await ctx.save_facts(event=verdict.event.value, reason=verdict.reason, message=verdict.message)


class EndRemains(Step):
    """A machine that cannot run any more has no process: its memory is free, its last words are kept."""

    name = "remains"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        if ctx.facts.get("event") not in _LOST or ctx.facts.get("left"):
            return Look.DONE
        with step_errors():
            machine = await self._bench.look(ctx)
        await self._bench.saw(machine)
        return Look.PARTIAL if machine.phase is MachinePhase.ACTIVE else Look.DONE

    async def do(self, ctx: StepContext) -> None:
        try:
            with step_errors():
                runner = await self._bench.runner(ctx)
                await runner.stop(
                    self._bench.fencing(ctx, self.name), force=True, grace_s=0, stage=_told_to_nobody
                )
        except Permanent as exc:
            # The instance is FAILED with or without its remains; a start and a delete end them too.
            _log.warning("remains left", extra={"instance": ctx.subject, "reason": exc.problem.reason})
            await ctx.save_facts(left=True)


async def _told_to_nobody(name: str) -> None:
    del name
