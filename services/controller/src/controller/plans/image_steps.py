"""Steps that bind the image's blob to the instance."""

from typing import Final

from controller.domain.machine import MachinePhase
from controller.operations import Look, ReversibleStep, Step, StepContext
from controller.plans.fetch_steps import resolved
from controller.plans.machine_steps import KEPT
from controller.plans.translation import step_errors
from controller.plans.workbench import Workbench

# The files are complete: the blob has been pinned and fetched before.
_COMPLETE: Final = frozenset({MachinePhase.PREPARED, MachinePhase.ACTIVE, MachinePhase.EXITED})


class PinImage(ReversibleStep):
    """A launch has the store keep the blob; an instance that comes to nothing lets go of it."""

    name = "image"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        if ctx.undoing and ctx.facts.get(KEPT):
            return Look.ABSENT
        if ctx.undoing:
            # Whether the call got through before a crash is not known: letting go is harmless.
            return Look.ABSENT if ctx.facts.get("unpinned") else Look.PARTIAL
        return Look.DONE if ctx.facts.get("pinned") else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        await _pin(self._bench, ctx)

    async def undo(self, ctx: StepContext) -> None:
        await unpin(self._bench, ctx)


class PinImageAgain(Step):
    """A start finishes what a launch was kept from: without complete files the blob is pinned first."""

    name = "image"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        if ctx.facts.get("pinned"):
            return Look.DONE
        with step_errors():
            machine = await self._bench.look(ctx)
        return Look.DONE if machine.phase in _COMPLETE else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        await _pin(self._bench, ctx)


class UnpinImage(Step):
    """Nobody keeps a blob for the instance any more."""

    name = "image"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        return Look.DONE if ctx.facts.get("unpinned") else Look.PARTIAL

    async def do(self, ctx: StepContext) -> None:
        await unpin(self._bench, ctx)


async def _pin(bench: Workbench, ctx: StepContext) -> None:
    instance = await resolved(bench, ctx)
    with step_errors():
        # A pin that stands is answered again, so this may repeat.
        await bench.store.pin(
            instance.id, instance.name, instance.image.name, instance.image.digest, ctx.remaining_s
        )
    ctx.log(f"The image store keeps {instance.image.name} ({instance.image.digest[:19]}…) for the instance.")
    await ctx.save_facts(pinned=True)


async def unpin(bench: Workbench, ctx: StepContext) -> None:
    """Let go of the blob, whether it was held or not."""
    with step_errors():
        await bench.store.unpin(ctx.subject, ctx.remaining_s)
    ctx.log("The image store keeps no image for the instance any more.")
    await ctx.save_facts(unpinned=True)
