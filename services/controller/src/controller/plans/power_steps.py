"""Steps that start, stop, pause, resume and reset a machine."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from controller.domain.machine import Machine, MachinePhase
from controller.domain.verdict import GUEST_SHUTDOWN, HOST_SHUTDOWN, STOPPED, Reason
from controller.operations import Look, NotYet, Permanent, Problem, ReversibleStep, Step, StepContext
from controller.plans.machine_steps import KEPT, quiesce
from controller.plans.translation import step_errors
from controller.plans.workbench import Workbench

POWER_OFF: Final = "power-off"
RUNNING: Final = "running"
# Ends that say nothing of QEMU or its guest: the process was taken away before it was seen to run.
_TAKEN_AWAY: Final = frozenset({STOPPED, HOST_SHUTDOWN, Reason.VM_HOST_EXITED, Reason.HOST_RESTARTED})


class PowerOn(ReversibleStep):
    """QEMU runs, or was seen to end: an end after it was spawned is for `ConfirmRunning` to tell."""

    name = "power"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        if ctx.undoing:
            with step_errors():
                machine = await self._bench.look(ctx)
            if machine.phase is MachinePhase.ACTIVE:
                return Look.PARTIAL
            to_keep = self._is_kept(ctx, machine) and not ctx.facts.get(KEPT)
            return Look.PARTIAL if to_keep else Look.ABSENT
        if not ctx.spec.get("start", True) or ctx.facts.get("failed"):
            return Look.DONE
        with step_errors():
            machine = await self._bench.look(ctx)
        return _power_of(machine, ctx.facts.get("incarnation"))

    async def allocate(self, ctx: StepContext) -> Mapping[str, Any]:
        with step_errors():
            machine = await self._bench.last_look(ctx)
        return {"incarnation": machine.incarnation}

    async def verify(self, ctx: StepContext) -> Look:
        if ctx.facts.get("failed"):
            return Look.DONE
        # What the start answered; whether it still holds is `ConfirmRunning`'s to look.
        with step_errors():
            machine = await self._bench.last_look(ctx)
        return _power_of(machine, ctx.facts.get("incarnation"))

    async def do(self, ctx: StepContext) -> None:
        await self._bench.boot(ctx)
        try:
            with step_errors():
                runner = await self._bench.runner(ctx)
                machine = await runner.start(self._bench.fencing(ctx, self.name))
        except Permanent as exc:
            with step_errors():
                machine = await self._bench.look(ctx)
            if not _was_spawned(machine, ctx.facts.get("incarnation", 0)):
                raise
            await ctx.save_facts(failed=exc.problem.to_json())
        await self._bench.answered(ctx, machine)

    async def undo(self, ctx: StepContext) -> None:
        with step_errors():
            runner = await self._bench.runner(ctx)
            machine = await runner.stop(
                self._bench.fencing(ctx, f"undo {self.name}"), force=True, grace_s=0, stage=_no_stage
            )
        await self._bench.saw(machine)
        if self._is_kept(ctx, machine):
            await ctx.save_facts(**{KEPT: True})

    @staticmethod
    def _is_kept(ctx: StepContext, machine: Machine) -> bool:
        """Tell whether the operation failed, not was cancelled, after QEMU had been spawned for it."""
        return not ctx.cancel_requested and _was_spawned(machine, ctx.facts.get("incarnation", 0))


class ConfirmRunning(Step):
    """The machine that was started runs. Failing from here on keeps the instance, FAILED."""

    name = RUNNING

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        if not ctx.spec.get("start", True) or ctx.facts.get("confirmed"):
            return Look.DONE
        return Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        failed = ctx.facts.get("failed")
        if failed is not None:
            raise Permanent(Problem.from_json(failed))
        with step_errors():
            machine = await self._bench.look(ctx)
        ended = machine.exit
        if machine.phase is MachinePhase.ACTIVE or (ended is not None and ended.reason == GUEST_SHUTDOWN):
            # A guest that panicked, was paused from outside or has powered itself off again is the
            # reconciler's to judge.
            await ctx.save_facts(confirmed=True)
            return
        if ended is None:
            raise Permanent(Problem(Reason.MACHINE_LOST, "The machine has no process."))
        await self._bench.saw(machine)
        raise Permanent(_exit_problem(machine))


class PowerOff(Step):
    """The process that ran when the operation began has ended."""

    name = POWER_OFF

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        if ctx.spec.get("force"):
            # What a superseded operation has in flight ends first.
            machine = await quiesce(self._bench, ctx)
        else:
            with step_errors():
                machine = await self._bench.look(ctx)
        if machine.phase is not MachinePhase.ACTIVE:
            await self._bench.saw(machine)
            return Look.DONE
        # A restart that is resumed must not stop what it has started itself.
        ours = ctx.facts.get("stopping", machine.incarnation) == machine.incarnation
        return Look.PARTIAL if ours else Look.DONE

    async def allocate(self, ctx: StepContext) -> Mapping[str, Any]:
        with step_errors():
            machine = await self._bench.last_look(ctx)
        return {"stopping": machine.incarnation}

    async def do(self, ctx: StepContext) -> None:
        shown = list(ctx.facts.get("shown", ()))

        async def stage(name: str) -> None:
            if name not in {entry["name"] for entry in shown}:
                shown.append({"name": name, "time": datetime.now(UTC).isoformat()})
                ctx.log(name)
                await ctx.save_facts(shown=shown)

        with step_errors():
            runner = await self._bench.runner(ctx)
            machine = await runner.stop(
                self._bench.fencing(ctx, self.name),
                force=bool(ctx.spec.get("force")),
                grace_s=float(ctx.spec.get("grace_s", 0)),
                stage=stage,
            )
        await self._bench.saw(machine)


class Pause(Step):
    """The guest's CPUs stand still."""

    name = "pause"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        with step_errors():
            machine = await self._bench.look(ctx)
        return Look.DONE if _active(machine).paused else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        with step_errors():
            runner = await self._bench.runner(ctx)
            machine = await runner.pause(self._bench.fencing(ctx, self.name))
        await self._bench.saw(machine)


class Resume(Step):
    """The guest's CPUs run."""

    name = "resume"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        with step_errors():
            machine = await self._bench.look(ctx)
        return Look.DONE if _active(machine).running else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        with step_errors():
            runner = await self._bench.runner(ctx)
            machine = await runner.resume(self._bench.fencing(ctx, self.name))
        await self._bench.saw(machine)


class Reset(Step):
    """The guest was reset once; the request's identity keeps a repeat from resetting it again."""

    name = "reset"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        return Look.DONE if ctx.facts.get("reset") else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        with step_errors():
            runner = await self._bench.runner(ctx)
            machine = await runner.reset(self._bench.fencing(ctx, self.name))
        await ctx.save_facts(reset=True)
        await self._bench.saw(machine)


def _power_of(machine: Machine, before: int | None) -> Look:
    """Say whether the machine runs; one that has ended since it was started must not be started again."""
    over = before is not None and _ended_by_itself(machine, before)
    return Look.DONE if machine.running or over else Look.ABSENT


def _active(machine: Machine) -> Machine:
    if machine.phase is not MachinePhase.ACTIVE:
        raise Permanent(Problem("INSTANCE_STATE_CONFLICT", "The machine has no process any more."))
    return machine


def _was_spawned(machine: Machine, before: int) -> bool:
    return machine.phase in {MachinePhase.EXITED, MachinePhase.ACTIVE} and machine.incarnation > before


def _ended_by_itself(machine: Machine, before: int) -> bool:
    end = machine.exit
    spawned = machine.phase is MachinePhase.EXITED and machine.incarnation > before
    return spawned and end is not None and end.reason not in _TAKEN_AWAY


def _exit_problem(machine: Machine) -> Problem:
    end = machine.exit
    if end is None:
        raise NotYet(Problem("STEP_NOT_DONE", "The machine's end is not known yet."))
    metadata = {"stderr": end.stderr_tail} if end.stderr_tail else {}
    return Problem(end.reason, end.message or "The machine has ended.", metadata)


async def _no_stage(name: str) -> None:
    del name
