"""Failing, cancelling, undoing, deadlines."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from controller.operations import (
    Engine,
    NotCancellable,
    NotYet,
    Operation,
    OperationId,
    OperationNotFound,
    Plan,
    Problem,
    PublicState,
    StageState,
    State,
)
from operations_fakes import LONG_S, Make, World, accepted, permanent, wanting


async def started(world: World, engine: Engine, step: Make) -> OperationId:
    """Submit an operation and stop it inside `step`."""
    step.gate = asyncio.Event()
    operation = await accepted(engine)
    await step.reached.wait()
    return operation


async def test_a_failure_undoes_the_entered_steps_in_reverse(world: World) -> None:
    *_, last = world.make_plan()
    last.faults = [permanent("BROKEN")]
    async with world.running() as engine:
        done = await engine.wait(await accepted(engine), LONG_S)
    assert done.state is State.FAILED
    assert done.error == Problem("BROKEN", "It is broken.")
    assert world.host.calls == ["do a", "do b", "undo b", "undo a"]
    assert [stage.state for stage in done.stages] == [StageState.UNDONE] * 3
    assert world.hooks.settled == [(done.id, "failed")]


async def test_cancelling_a_running_operation_leaves_nothing(world: World) -> None:
    _, second, _ = world.make_plan()
    async with world.running() as engine:
        operation = await started(world, engine, second)
        turned = await engine.cancel(operation)
        done = await engine.wait(operation, LONG_S)
    assert turned.public_state is PublicState.UNDOING
    assert done.state is State.CANCELLED
    assert done.error is None
    assert world.host.objects == {}


async def test_cancelling_raises_the_fence_so_that_a_late_call_is_refused(world: World) -> None:
    _, second, _ = world.make_plan()
    async with world.running() as engine:
        operation = await started(world, engine, second)
        before = (await engine.get(operation)).fence
        await engine.cancel(operation)
        done = await engine.wait(operation, LONG_S)
    assert done.fence > before
    assert world.host.fences["s1"] == done.fence


async def test_a_cancel_that_overtakes_the_final_save_wins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 1: it must not end SUCCEEDED when undo has run."""
    world.make_plan()
    cancels: list[asyncio.Future[Operation]] = []

    def reached(name: str) -> None:
        if name == "settle.before_commit" and not cancels:
            cancels.append(asyncio.ensure_future(engine.cancel("op-1")))

    write = world.database.write

    async def writing(work: Callable[[Any], Any]) -> Any:
        if cancels and work.__qualname__.startswith("Hold."):
            # The final save: begun, and yet behind the cancel's transaction.
            await asyncio.wait(cancels)
        return await write(work)

    monkeypatch.setattr(world.database, "write", writing)
    async with world.running(fail_points=reached) as engine:
        done = await engine.wait(await accepted(engine), LONG_S)
        turned = await cancels[0]
    assert turned.state is State.UNDOING
    assert done.state is State.CANCELLED
    assert world.host.objects == {}
    assert world.hooks.settled == [("op-1", "cancelled")]


async def test_a_waiting_operation_is_cancelled_at_once(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    operation = await accepted(engine)
    assert (await engine.cancel(operation)).state is State.CANCELLED
    assert world.hooks.settled == [(operation, "cancelled")]


async def test_a_finished_operation_cannot_be_cancelled(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        operation = await accepted(engine)
        await engine.wait(operation, LONG_S)
        with pytest.raises(NotCancellable):
            await engine.cancel(operation)


async def test_an_unknown_operation_cannot_be_cancelled(world: World) -> None:
    world.make_plan()
    with pytest.raises(OperationNotFound):
        await world.engine().cancel("op-nowhere")


async def test_cancelling_twice_is_harmless(world: World) -> None:
    first, second, _ = world.make_plan()
    first.undo_faults = [NotYet(Problem("SLOW", ""))]
    async with world.running() as engine:
        operation = await started(world, engine, second)
        await engine.cancel(operation)
        assert (await engine.cancel(operation)).state is State.UNDOING


async def test_past_its_point_of_no_return_cancel_is_refused(world: World) -> None:
    """Trap 8: a half-done delete does not end as cancelled."""
    *_, third = world.make_plan(point_of_no_return="b")
    async with world.running() as engine:
        operation = await started(world, engine, third)
        with pytest.raises(NotCancellable):
            await engine.cancel(operation)
        assert third.gate is not None
        third.gate.set()
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.SUCCEEDED


async def test_past_its_point_of_no_return_a_failing_operation_goes_on_slowly(world: World) -> None:
    *_, third = world.make_plan(point_of_no_return="b")
    third.faults = [permanent(), permanent()]
    async with world.running() as engine:
        operation = await accepted(engine)
        delays = []
        for _ in range(2):
            delays.append(await world.clock.until_asleep_for(60))
            stuck = await engine.get(operation)
            world.clock.advance(delays[-1])
        done = await engine.wait(operation, LONG_S)
    assert stuck.needs_attention
    assert stuck.error is not None
    assert delays == pytest.approx([1, 2])
    assert (done.state, done.error, done.needs_attention) == (State.SUCCEEDED, None, False)


async def test_a_failure_after_the_kept_step_leaves_everything_in_place(world: World) -> None:
    *_, third = world.make_plan(keep_after="b")
    third.faults = [permanent()]
    async with world.running() as engine:
        done = await engine.wait(await accepted(engine), LONG_S)
    assert done.state is State.FAILED
    assert world.host.of("s1") == {"a", "b"}
    assert done.stages[2].state is StageState.FAILED


async def test_a_cancel_after_the_kept_step_still_undoes(world: World) -> None:
    *_, third = world.make_plan(keep_after="b")
    async with world.running() as engine:
        operation = await started(world, engine, third)
        await engine.cancel(operation)
        await engine.wait(operation, LONG_S)
    assert world.host.objects == {}


async def test_undo_that_keeps_failing_asks_for_attention_and_is_retried_ever_more_slowly(
    world: World,
) -> None:
    """Trap 7."""
    first, second, _ = world.make_plan(max_step_failures=1)
    second.faults = [permanent("BROKEN")]
    first.undo_faults = [permanent("STUCK") for _ in range(8)]
    async with world.running() as engine:
        operation = await accepted(engine)
        delays = []
        for _ in range(8):
            delays.append(await world.clock.until_asleep_for(60))
            stuck = await engine.get(operation)
            world.clock.advance(delays[-1])
        done = await engine.wait(operation, LONG_S)
    assert delays == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    assert (stuck.needs_attention, stuck.undo_failures) == (True, 8)
    assert stuck.error is not None
    assert (stuck.error.reason, stuck.error.metadata["undo"]) == ("BROKEN", "STUCK")
    assert done.state is State.FAILED
    assert world.host.objects == {}


async def test_undo_has_a_deadline_of_its_own(world: World) -> None:
    first, second, _ = world.make_plan(undo_deadline_s=30)
    first.undo_faults = [NotYet(Problem("SLOW", "")) for _ in range(1000)]
    async with world.running() as engine:
        operation = await started(world, engine, second)
        await engine.cancel(operation)
        current = await engine.get(operation)
        while not current.needs_attention:
            world.clock.advance(await world.clock.until_asleep_for(5))
            current = await engine.get(operation)
    assert current.state is State.UNDOING
    assert current.error is not None
    assert current.error.metadata["cause"] == "DEADLINE_EXCEEDED"


async def test_the_undo_of_a_retired_step_is_still_known(world: World) -> None:
    first, second, _ = world.make_plan()
    async with world.doomed() as engine:
        operation = await started(world, engine, second)
    world.plans = [Plan(kind="make", revision=2, steps=(second,), retired_steps=(first,), deadline_s=600)]
    second.gate, second.faults = None, [permanent()]
    async with world.running() as engine:
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.FAILED
    assert world.host.objects == {}


async def test_an_operation_that_waits_past_its_deadline_fails_without_running(world: World) -> None:
    world.make_plan(deadline_s=10)
    operation = await accepted(world.engine())
    world.clock.advance(11)
    async with world.running() as engine:
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.FAILED
    assert world.host.calls == []
    assert world.hooks.started == []


async def test_a_clock_that_is_set_back_does_not_keep_what_is_queued_waiting(world: World) -> None:
    world.make_plan(deadline_s=86_400)
    operation = await accepted(world.engine())
    world.clock.wall -= timedelta(hours=1)
    async with world.running() as engine:
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.SUCCEEDED


async def test_a_clock_that_is_set_back_by_little_delays_nothing_either(world: World) -> None:
    (step,) = world.make_plan(names=["a"])
    step.faults = [NotYet(Problem("SLOW", ""))]
    async with world.running() as engine:
        operation = await accepted(engine)
        pause_s = await world.clock.until_asleep_for(60)
        world.clock.wall -= timedelta(seconds=90)
        world.clock.advance(pause_s)
        done = await asyncio.wait_for(engine.wait(operation, LONG_S), 10)
    assert (done.state, len(step.attempts)) == (State.SUCCEEDED, 2)


async def test_a_precondition_that_is_gone_at_the_start_fails_the_operation(world: World) -> None:
    def refuse(conn: object, operation: object) -> None:
        raise permanent("GONE")

    host_step = Make(world.host, "a")
    world.plans = [Plan(kind="make", revision=1, steps=(host_step,), deadline_s=60, on_start=refuse)]
    async with world.running() as engine:
        done = await engine.wait(await accepted(engine), LONG_S)
    assert done.error is not None
    assert done.error.reason == "GONE"
    assert world.host.calls == []


async def test_a_broken_start_hook_fails_its_operation_only(world: World) -> None:
    def broken(conn: object, operation: object) -> None:
        raise ZeroDivisionError

    world.make_plan()
    world.plans.append(
        Plan(kind="odd", revision=1, steps=(Make(world.host, "z"),), deadline_s=60, on_start=broken)
    )
    async with world.running() as engine:
        odd = await accepted(engine, wanting("s9", "odd"))
        fine = await accepted(engine)
        assert (await engine.wait(odd, LONG_S)).state is State.FAILED
        assert (await engine.wait(fine, LONG_S)).state is State.SUCCEEDED


async def test_quiesce_comes_before_any_undo_and_under_the_new_fence(world: World) -> None:
    quiesced: list[int] = []

    async def quiesce(ctx: object) -> None:
        quiesced.append(ctx.fence)  # type: ignore[attr-defined]
        assert "undo a" not in world.host.calls

    first, *_ = world.make_plan(quiesce=quiesce)
    async with world.running() as engine:
        operation = await started(world, engine, first)
        await engine.cancel(operation)
        done = await engine.wait(operation, LONG_S)
    assert quiesced == [done.fence]
