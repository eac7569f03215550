"""Steps that take a quarantined machine over as it is."""

from controller.domain.lifecycle import Event
from controller.domain.machine import Machine, MachinePhase
from controller.domain.verdict import Verdict, ended, seen
from controller.errors import ImageDigestMismatch, ImageNotFound
from controller.operations import Look, NotYet, Permanent, Problem, ReversibleStep, Step, StepContext
from controller.plans.image_steps import unpin
from controller.plans.translation import step_errors
from controller.plans.workbench import Workbench
from controller.records.instance_record import record_of

IMAGE_GONE = "IMAGE_GONE"


class PinWhatIsThere(ReversibleStep):
    """The store keeps the blob, if it has it: a machine whose image is gone has its own copy of the base."""

    name = "image"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        if ctx.undoing:
            return Look.ABSENT if ctx.facts.get("unpinned") else Look.PARTIAL
        return Look.DONE if "pinned" in ctx.facts else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        instance = await self._bench.instance(ctx)
        image, pinned = instance.image, True
        with step_errors():
            try:
                await self._bench.store.pin(
                    instance.id, instance.name, image.name, image.digest, ctx.remaining_s
                )
            except (ImageNotFound, ImageDigestMismatch):
                pinned = False
        await ctx.save_facts(pinned=pinned)

    async def undo(self, ctx: StepContext) -> None:
        await unpin(self._bench, ctx)


class ClaimMachine(Step):
    """The machine's own record says that it is this database's, under this operation's fence.

    Broken off it stays so: the machine is an orphan as before, and can be imported again.
    """

    name = "machine"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        with step_errors():
            machine = await self._bench.look(ctx)
        if machine.phase is MachinePhase.ABSENT:
            raise Permanent(Problem("ORPHAN_NOT_FOUND", "The machine is gone."))
        instance = await self._bench.instance(ctx)
        ours = machine.cluster_id == self._bench.cluster_id and machine.record == record_of(instance)
        return Look.DONE if ours else Look.PARTIAL

    async def do(self, ctx: StepContext) -> None:
        instance = await self._bench.instance(ctx)
        with step_errors():
            runner = await self._bench.runner(ctx)
            machine = await runner.claim(
                self._bench.fencing(ctx, self.name),
                instance.name,
                self._bench.cluster_id,
                record_of(instance),
            )
        await self._bench.saw(machine)


class LookAtMachine(Step):
    """How the machine stands is known, under this operation's fence; `on_settle` moves the state."""

    name = "look"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        return Look.DONE if "event" in ctx.facts else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        with step_errors():
            machine = await self._bench.look(ctx)
        await self._bench.saw(machine)
        found = _standing(machine)
        await ctx.save_facts(event=found.event.value, reason=found.reason, message=found.message)


def _standing(machine: Machine) -> Verdict:
    if machine.phase is MachinePhase.ACTIVE:
        if not machine.run_state:
            raise NotYet(Problem("VM_HOST_UNAVAILABLE", "The runner cannot look at the process yet."))
        return seen(machine) or Verdict(Event.IS_RUNNING)
    # Never started, or not even complete: a start goes on where its making ended.
    return ended(machine) if machine.phase is MachinePhase.EXITED else Verdict(Event.IS_OFF)
