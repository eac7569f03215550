import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from controller.operations import (
    EngineSettings,
    Event,
    Look,
    NotYet,
    PeerUnavailable,
    Plan,
    Problem,
    Retryable,
    StageState,
    State,
    StepContext,
)
from operations_fakes import LONG_S, Make, World, accepted, permanent, wanting


async def test_a_submitted_operation_runs_all_its_steps_in_order(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        done = await engine.wait(await accepted(engine), LONG_S)
    assert done.state is State.SUCCEEDED
    assert world.host.calls == ["do a", "do b", "do c"]
    assert [stage.state for stage in done.stages] == [StageState.SUCCEEDED] * 3


async def test_the_hooks_run_once_each(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        operation = await accepted(engine)
        await engine.wait(operation, LONG_S)
    assert world.hooks.started == [operation]
    assert world.hooks.settled == [(operation, "succeeded")]


async def test_a_goal_that_holds_already_is_skipped_and_not_undone(world: World) -> None:
    first, _, last = world.make_plan()
    first.look_as = [Look.DONE]
    last.faults = [permanent()]
    async with world.running() as engine:
        done = await engine.wait(await accepted(engine), LONG_S)
    assert done.stages[0].state is StageState.SKIPPED
    assert world.host.calls == ["do b", "undo b"]


async def test_an_object_of_another_owner_fails_the_operation_and_stays(world: World) -> None:
    world.make_plan()
    world.host.objects["s1", "b"] = "somebody"
    async with world.running() as engine:
        done = await engine.wait(await accepted(engine), LONG_S)
    assert done.error is not None
    assert done.error.reason == "FOREIGN_OBJECT"
    assert world.host.objects == {("s1", "b"): "somebody"}


class Allocating(Make):
    stored: Mapping[str, Any] | None = None
    world: World

    async def allocate(self, ctx: StepContext) -> Mapping[str, Any]:
        return {"port": 4711}

    async def do(self, ctx: StepContext) -> None:
        engine = self.world.engine()
        self.stored = (await engine.get(ctx.operation_id)).facts
        await ctx.save_facts(more=1)
        await super().do(ctx)


async def test_facts_are_durable_before_the_step_acts(world: World) -> None:
    step = Allocating(world.host, "a")
    step.world = world
    world.plans = [Plan(kind="make", revision=1, steps=(step,), deadline_s=600)]
    async with world.running() as engine:
        done = await engine.wait(await accepted(engine), LONG_S)
    assert step.stored == {"port": 4711}
    assert done.facts == {"port": 4711, "more": 1}


@pytest.mark.parametrize(
    "fault",
    [
        NotYet(Problem("SLOW", "")),
        PeerUnavailable(Problem("AWAY", "")),
        Retryable(Problem("ODD", "")),
        KeyError("x"),
    ],
)
async def test_only_the_failing_step_is_tried_again(world: World, fault: Exception) -> None:
    _, second, _ = world.make_plan()
    second.faults = [fault, fault]
    async with world.running() as engine:
        operation = await accepted(engine)
        for _ in range(2):
            world.clock.advance(await world.clock.until_asleep_for(5))
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.SUCCEEDED
    assert world.host.calls == ["do a", "do b", "do c"]
    assert len(second.attempts) == 3


async def test_counted_failures_in_a_row_fail_the_operation(world: World) -> None:
    _, second, _ = world.make_plan(max_step_failures=3)
    second.faults = [Retryable(Problem("ODD", "It was odd."))] * 3
    async with world.running() as engine:
        operation = await accepted(engine)
        for _ in range(2):
            world.clock.advance(await world.clock.until_asleep_for(5))
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.FAILED
    assert done.error == Problem("ODD", "It was odd.")
    assert world.host.objects == {}


async def test_not_yet_ends_at_the_deadline_and_tells_its_cause(world: World) -> None:
    _, second, _ = world.make_plan(deadline_s=60)
    second.faults = [NotYet(Problem("SLOW", "It is slow."))] * 1000
    async with world.running() as engine:
        operation = await accepted(engine)
        waiting = asyncio.ensure_future(engine.wait(operation, LONG_S))
        while not waiting.done():
            asleep = asyncio.ensure_future(world.clock.until_asleep_for(5))
            await asyncio.wait({asleep, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if asleep.done():
                world.clock.advance(asleep.result())
            asleep.cancel()
        done = await waiting
    assert done.error is not None
    assert (done.error.reason, done.error.metadata["cause"]) == ("DEADLINE_EXCEEDED", "SLOW")
    assert len(second.attempts) < 30
    assert world.host.objects == {}


async def test_a_busy_look_is_looked_at_again(world: World) -> None:
    first, _, _ = world.make_plan()
    first.look_as = [Look.BUSY]
    async with world.running() as engine:
        operation = await accepted(engine)
        world.clock.advance(await world.clock.until_asleep_for(5))
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.SUCCEEDED


async def test_events_tell_each_change_of_a_step_once(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        feed = await engine.feed.tail()
        operation = await accepted(engine)
        told = []
        async for item in feed:
            assert isinstance(item, Event)
            assert item.operation_id == operation
            told.append(item.type.removeprefix("operation."))
            if told[-1] == "finished":
                break
    assert told == ["created", "updated", "updated", "updated", "updated", "finished"]


class Reporting(Make):
    async def do(self, ctx: StepContext) -> None:
        ctx.progress(5, 10, "bytes")
        await super().do(ctx)


async def test_progress_reaches_the_row(world: World) -> None:
    step = Reporting(world.host, "a")
    step.gate = asyncio.Event()
    world.plans = [Plan(kind="make", revision=1, steps=(step,), deadline_s=600)]
    async with world.running() as engine:
        feed = await engine.feed.tail()
        operation = await accepted(engine)
        async for _ in feed:
            current = await engine.get(operation)
            if current.progress is not None:
                break
        step.gate.set()
        await engine.wait(operation, LONG_S)
    assert current.progress is not None
    assert (current.progress.done, current.progress.total, current.progress.unit) == (5, 10, "bytes")


async def test_no_more_operations_run_than_there_are_slots(world: World) -> None:
    (step,) = world.make_plan(names=["a"])
    step.gate = asyncio.Event()
    async with world.running(settings=EngineSettings(slots=2, resync_s=3600, trim_every_s=1e9)) as engine:
        ids = [await accepted(engine, wanting(f"s{number}")) for number in range(5)]
        while len(step.attempts) < 2:
            step.reached.clear()
            await step.reached.wait()
        assert len(step.attempts) == 2
        step.gate.set()
        states = [(await engine.wait(operation, LONG_S)).state for operation in ids]
    assert states == [State.SUCCEEDED] * 5
