"""Steps that make, change and remove a machine's files."""

from dataclasses import replace
from typing import Final

from controller.domain.instance import Instance
from controller.domain.machine import Machine, MachinePhase
from controller.errors import PeerAway, PeerRefused
from controller.operations import Look, ReversibleStep, Step, StepContext
from controller.plans.translation import step_errors
from controller.plans.workbench import Workbench
from controller.records.instance_record import record_of, with_policies

KEPT: Final = "kept"
"""Fact of an operation that failed after QEMU was spawned: what it made stays, to be looked at."""
_TELL_S: Final = 5.0
_WITH_FILES: Final = frozenset({MachinePhase.PREPARED, MachinePhase.ACTIVE, MachinePhase.EXITED})


class PrepareMachine(Step):
    """The machine's files match the instance; a start looks again, since an update may have come between."""

    name = "machine"

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench

    async def look(self, ctx: StepContext) -> Look:
        with step_errors():
            machine = await self.bench.look(ctx)
        if machine.phase not in _WITH_FILES:
            return Look.ABSENT if machine.phase is MachinePhase.ABSENT else Look.PARTIAL
        if machine.phase is MachinePhase.ACTIVE:
            # What runs is not changed under its feet.
            return Look.DONE
        instance = await self.bench.instance(ctx)
        return Look.DONE if machine.record == record_of(instance) else Look.PARTIAL

    async def do(self, ctx: StepContext) -> None:
        instance = await self.bench.instance(ctx)
        spec = await self.bench.spec(instance)
        with step_errors():
            runner = await self.bench.runner(ctx)
            machine = await runner.prepare(self.bench.fencing(ctx, self.name), spec, ctx.progress)
        ctx.log(f"{instance.node} has the machine's files: disk of {instance.resources.disk_mib} MiB, seed.")
        await self.bench.answered(ctx, machine)

    async def verify(self, ctx: StepContext) -> Look:
        with step_errors():
            machine = await self.bench.last_look(ctx)
        return Look.DONE if machine.phase in _WITH_FILES else Look.PARTIAL


class MakeMachine(PrepareMachine, ReversibleStep):
    """The files of a new machine, which go again if the launch comes to nothing."""

    async def undo(self, ctx: StepContext) -> None:
        with step_errors():
            runner = await self.bench.runner(ctx)
            await runner.delete(self.bench.fencing(ctx, f"undo {self.name}"))
        await ctx.save_facts(unmade=True)

    async def look(self, ctx: StepContext) -> Look:
        if ctx.undoing and ctx.facts.get(KEPT):
            return Look.ABSENT
        if ctx.undoing:
            return await _left(self.bench, ctx, asked=bool(ctx.facts.get("unmade")))
        return await super().look(ctx)


class ResizeMachine(PrepareMachine):
    """What exists of the machine matches a changed instance; nothing to do where only labels changed."""

    async def look(self, ctx: StepContext) -> Look:
        ports = ctx.spec.get("ports", False)
        if not ctx.spec["resize"] and not ports:
            return Look.DONE
        instance = await self.bench.instance(ctx)
        with step_errors():
            machine = await self.bench.look(ctx)
        changeable = {MachinePhase.PREPARED, MachinePhase.EXITED}
        if ports and instance.publishes_live:
            changeable.add(MachinePhase.ACTIVE)
        if machine.phase not in changeable or machine.record == record_of(instance):
            return Look.DONE
        return Look.PARTIAL


class TellRecord(Step):
    """The machine's own record has the labels and policies, for whoever imports it one day.

    Nothing depends on it now: a runner that is away or has no room is told with the next start.
    """

    name = "record"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        return Look.DONE if ctx.facts.get("told") else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        instance = await self._bench.instance(ctx)
        machine = instance.machine
        if machine is not None and machine.phase in _WITH_FILES:
            record = with_policies(machine.record, instance)
            if record != machine.record:
                await self._tell(ctx, instance, record)
        await ctx.save_facts(told=True)

    async def _tell(self, ctx: StepContext, instance: Instance, record: str) -> None:
        fencing = self._bench.fencing(ctx, self.name)
        fencing = replace(fencing, timeout_s=min(fencing.timeout_s, _TELL_S))
        with step_errors():
            runner = await self._bench.runner(ctx)
            try:
                machine = await runner.claim(fencing, instance.name, self._bench.cluster_id, record)
            except (PeerAway, PeerRefused) as exc:
                ctx.log(f"The machine's record is brought in step at the next start: {exc.message}")
            else:
                await self._bench.saw(machine)


class BeginRemoval(Step):
    """The point of no return of a delete: from here on it goes forward whatever happens."""

    name = "begin"

    async def look(self, ctx: StepContext) -> Look:
        return Look.DONE if ctx.facts.get("begun") else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        await ctx.save_facts(begun=True)


class RemoveMachine(Step):
    """Neither process nor files of the machine are left."""

    name = "machine"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        left = await _left(self._bench, ctx, asked=bool(ctx.facts.get("removed")))
        return Look.DONE if left is Look.ABSENT else left

    async def do(self, ctx: StepContext) -> None:
        fencing = self._bench.fencing(ctx, self.name)
        with step_errors():
            runner = await self._bench.runner(ctx)
            # What a superseded operation has in flight ends first.
            await runner.quiesce(fencing)
            await runner.delete(fencing)
        ctx.log("Neither process nor files are left.")
        await ctx.save_facts(removed=True)


async def _left(bench: Workbench, ctx: StepContext, *, asked: bool) -> Look:
    """Say whether something is left of the machine: files whose making was broken off are not observed.

    So nothing is left only where the runner was `asked` to remove it, which is harmless to repeat.
    """
    with step_errors():
        machine = await bench.look(ctx)
    return Look.ABSENT if asked and machine.phase is MachinePhase.ABSENT else Look.PARTIAL


async def quiesce(bench: Workbench, ctx: StepContext) -> Machine:
    """End what the operation still has in flight, before anything of it is undone."""
    with step_errors():
        runner = await bench.runner(ctx)
        return await runner.quiesce(bench.fencing(ctx, "quiesce"))
