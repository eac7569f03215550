"""The one step of the system's own operations: look again, under a fence, before any state moves."""

from controller.domain.verdict import judge
from controller.operations import Look, Step, StepContext
from controller.plans.translation import step_errors
from controller.plans.workbench import Workbench


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
