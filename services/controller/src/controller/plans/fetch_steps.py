"""Steps that bring an image into the store from a URL."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from controller.domain.image_source import FetchWish, name_of_digest, shown_url
from controller.domain.instance import Instance
from controller.errors import ImageNotFound
from controller.instances.image_imports import holds
from controller.operations import Look, Operation, Problem, ReversibleStep, State, StepContext
from controller.plans.translation import step_errors
from controller.plans.workbench import Workbench
from controller.ports import StoreImage
from controller.records import image_sources


class FetchImage(ReversibleStep):
    """The name points to the bytes that were asked for; broken off, to nothing that was not there before."""

    name = "fetch"

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def look(self, ctx: StepContext) -> Look:
        if ctx.undoing:
            return Look.ABSENT if ctx.facts.get("undone") else Look.PARTIAL
        found = await self._found(ctx)
        if found is None:
            return Look.ABSENT
        return Look.DONE if holds(found, ctx.spec) else Look.PARTIAL

    async def allocate(self, ctx: StepContext) -> Mapping[str, Any]:
        return {"replaces": await self._found(ctx) is not None}

    async def do(self, ctx: StepContext) -> None:
        spec = ctx.spec
        url = await self._bench.sources.url_of(ctx.subject)
        wish = FetchWish(spec["name"], url, spec["digest"], spec["arch"], spec["labels"])
        await _fetch(self._bench, ctx, wish)

    async def undo(self, ctx: StepContext) -> None:
        # What had the name before is gone or still there: neither is brought back by removing the new one.
        if not ctx.facts.get("replaces"):
            with step_errors():
                await self._bench.store.undo_fetch(ctx.spec["name"], ctx.spec["digest"], ctx.remaining_s)
            ctx.log(f"The image store keeps nothing of {ctx.spec['name']}.")
        await ctx.save_facts(undone=True)

    async def _found(self, ctx: StepContext) -> StoreImage | None:
        with step_errors():
            try:
                return await self._bench.store.find(ctx.spec["name"])
            except ImageNotFound:
                return None


def image_imported(conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
    """Forget the URL: nothing more is fetched from it."""
    del outcome, error
    image_sources.forget(conn, operation.subject)


async def resolved(bench: Workbench, ctx: StepContext) -> Instance:
    """Return the operation's instance with its image known, which is fetched unless the store has it."""
    instance = await bench.instance(ctx)
    if instance.image.resolved:
        return instance
    digest = instance.image.digest
    with step_errors():
        found = await bench.store.find_by_digest(digest)
    if found is None:
        url = await bench.sources.url_of(ctx.subject)
        wish = FetchWish(name_of_digest(digest), url, digest, instance.arch, only_new=True)
        found = await _fetch(bench, ctx, wish)
    return await bench.sources.resolve(ctx, found)


async def _fetch(bench: Workbench, ctx: StepContext, wish: FetchWish) -> StoreImage:
    shown = shown_url(wish.url)
    ctx.log(f"The image store fetches {shown}.")

    def progress(done: int, total: int) -> None:
        ctx.progress(done, total, "bytes")

    # Hours are possible: what takes seconds does not wait for it.
    with ctx.aside(), step_errors():
        found = await bench.store.fetch(wish, progress, ctx.remaining_s)
    ctx.log(f"{wish.name} is what {shown} serves ({wish.digest[:19]}…).")
    return found
