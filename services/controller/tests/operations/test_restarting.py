"""Crashes at every named moment, shutdown, loops that die, outages."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from controller.database import DatabaseUnavailable
from controller.operations import EngineSettings, EngineStopped, Plan, State, Supersede
from controller.operations.rows import operations
from operations_fakes import LONG_S, Crash, World, accepted, crash_at, permanent, wanting
from sqlalchemy import select

FORWARD = [
    "claim.after_commit",
    *(
        f"step.{name}.{when}"
        for name in "abc"
        for when in ("before_look", "before_enter", "before_do", "after_do")
    ),
    "settle.before_commit",
    "settle.after_commit",
]
BACK = [
    "undo.before_commit",
    "undo.after_commit",
    *(f"undo.{name}.{when}" for name in "cba" for when in ("before", "after")),
    "settle.before_commit",
    "settle.after_commit",
]


async def crashed(world: World, moment: str) -> str:
    engine = world.engine(fail_points=crash_at(moment))
    operation = await accepted(engine)
    with pytest.raises(BaseExceptionGroup) as died:
        await engine.run()
    assert died.group_contains(Crash, match=moment)
    return operation


@pytest.mark.parametrize("moment", FORWARD)
async def test_an_operation_survives_a_crash_and_ends_once(world: World, moment: str) -> None:
    world.make_plan()
    operation = await crashed(world, moment)
    async with world.running() as engine:
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.SUCCEEDED
    assert world.host.of("s1") == {"a", "b", "c"}
    assert world.hooks.settled == [(operation, "succeeded")]
    assert world.hooks.started == [operation]


@pytest.mark.parametrize("moment", BACK)
async def test_an_undo_survives_a_crash_and_ends_once(world: World, moment: str) -> None:
    *_, last = world.make_plan()
    last.faults = [permanent("BROKEN")]
    operation = await crashed(world, moment)
    last.faults = [permanent("BROKEN")]
    async with world.running() as engine:
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.FAILED
    assert done.error is not None
    assert done.error.reason == "BROKEN"
    assert world.host.objects == {}
    assert world.hooks.settled == [(operation, "failed")]


async def test_a_resumed_operation_has_a_higher_fence(world: World) -> None:
    step, *_ = world.make_plan()
    await crashed(world, "step.b.before_look")
    async with world.running() as engine:
        await engine.wait("op-1", LONG_S)
    assert world.host.fences["s1"] > step.fences[0]


async def test_a_cancel_between_the_claim_and_its_run_is_heard_by_the_run(world: World) -> None:
    _, second, _ = world.make_plan()
    await crashed(world, "step.b.before_do")
    second.gate = asyncio.Event()
    cancels: list[asyncio.Future[object]] = []

    engine = world.engine()
    claiming = world.database.write

    async def write(work: Callable[[Any], Any]) -> Any:
        result = await claiming(work)
        if getattr(work, "__name__", "") == "look_for_work" and not cancels:
            cancels.append(asyncio.ensure_future(engine.cancel("op-1")))
            await cancels[0]
        return result

    world.database.write = write  # type: ignore[method-assign]
    running = asyncio.ensure_future(engine.run())
    done = await engine.wait("op-1", LONG_S)
    await engine.stop()
    await running
    assert done.state is State.CANCELLED
    assert "do b" not in world.host.calls


async def test_a_successor_blocked_at_the_crash_gets_its_turn(world: World) -> None:
    first_step, *_ = world.make_plan()
    async with world.doomed() as engine:
        first_step.gate = asyncio.Event()
        await accepted(engine)
        await first_step.reached.wait()
        second = await accepted(engine, wanting(supersede=Supersede.UNDO))
    first_step.gate = None
    async with world.running() as engine:
        assert (await engine.wait(second, LONG_S)).state is State.SUCCEEDED
        assert (await engine.get("op-1")).state is State.CANCELLED


async def test_stopping_lets_the_step_reach_its_end_and_gives_the_row_back(world: World) -> None:
    first, *_ = world.make_plan()
    first.gate = asyncio.Event()
    async with world.running() as engine:
        operation = await accepted(engine)
        await first.reached.wait()
        stopping = asyncio.ensure_future(engine.stop())
        await world.clock.until_asleep_for(10)
        first.gate.set()
        await stopping
    left = await engine.get(operation)
    assert (left.state, left.owner) == (State.RUNNING, None)
    assert world.host.of("s1") == {"a"}


async def test_a_step_that_takes_too_long_to_stop_is_ended(world: World) -> None:
    first, *_ = world.make_plan()
    first.gate = asyncio.Event()
    async with world.running() as engine:
        operation = await accepted(engine)
        await first.reached.wait()
        stopping = asyncio.ensure_future(engine.stop())
        world.clock.advance(await world.clock.until_asleep_for(10))
        await stopping
    assert (await engine.get(operation)).owner is None
    assert world.host.objects == {}


async def test_a_stopped_operation_is_resumed_by_the_next_engine(world: World) -> None:
    first, *_ = world.make_plan()
    first.gate = asyncio.Event()
    async with world.running() as engine:
        operation = await accepted(engine)
        await first.reached.wait()
        stopping = asyncio.ensure_future(engine.stop())
        await world.clock.until_asleep_for(10)
        first.gate.set()
        await stopping
    async with world.running() as engine:
        assert (await engine.wait(operation, LONG_S)).state is State.SUCCEEDED


async def test_an_unknown_kind_is_left_alone_and_holds_nobody_up(world: World) -> None:
    """Trap 3."""
    world.make_plan("old")
    odd = await accepted(world.engine(), wanting("s9", "old"))
    world.plans = []
    world.make_plan()
    async with world.running() as engine:
        fine = await engine.wait(await accepted(engine), LONG_S)
        left = await engine.get(odd)
    assert fine.state is State.SUCCEEDED
    assert (left.state, left.attempt, left.owner) == (State.QUEUED, 0, None)


async def test_a_run_is_never_claimed_beside_itself(world: World) -> None:
    """Trap 4: a row that lost its owner while its run is alive here."""
    first, *_ = world.make_plan()
    first.gate = asyncio.Event()
    async with world.running() as engine:
        operation = await accepted(engine)
        await first.reached.wait()
        await world.database.write(lambda conn: conn.execute(operations.update().values(owner=None)))
        await accepted(engine, wanting("s2"))
        await engine.submit(wanting("s3"))
        attempt = (await engine.get(operation)).attempt
        first.gate.set()
    assert attempt == 1


async def test_a_database_outage_is_no_failure_of_a_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 5."""
    first, *_ = world.make_plan(max_step_failures=1)
    first.gate = asyncio.Event()
    async with world.running() as engine:
        operation = await accepted(engine)
        await first.reached.wait()
        left = 30
        write = world.database.write

        async def failing(work: Callable[[Any], Any]) -> Any:
            nonlocal left
            if left:
                left -= 1
                raise DatabaseUnavailable("away")
            return await write(work)

        monkeypatch.setattr(world.database, "write", failing)
        first.gate.set()
        waiting = asyncio.ensure_future(engine.wait(operation, LONG_S))
        while left:
            world.clock.advance(await world.clock.until_asleep_for(5))
        world.clock.advance(5)
        done = await waiting
    assert (done.state, done.step_failures) == (State.SUCCEEDED, 0)


async def test_a_broken_settle_hook_is_retried_slowly_and_not_lost(world: World) -> None:
    broken = [True]

    def settle(conn: object, operation: object, outcome: object, error: object) -> None:
        if broken:
            broken.pop()
            raise ZeroDivisionError

    (step,) = world.make_plan(names=["a"])
    world.plans = [Plan(kind="make", revision=1, steps=(step,), deadline_s=60, on_settle=settle)]
    async with world.running() as engine:
        operation = await accepted(engine)
        world.clock.advance(await world.clock.until_asleep_for(5))
        done = await engine.wait(operation, LONG_S)
    assert done.state is State.SUCCEEDED


@pytest.mark.parametrize("loop", ["_supervisor.claim_for", "feed.follow", "_retention_loop"])
async def test_a_loop_that_ends_ends_the_engine(
    world: World, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.make_plan()
    engine = world.engine()

    async def ends(*parts: object) -> None:
        return None

    owner, _, name = loop.rpartition(".")
    monkeypatch.setattr(getattr(engine, owner) if owner else engine, name, ends)
    with pytest.raises(BaseExceptionGroup) as died:
        await engine.run()
    assert died.group_contains(EngineStopped)


async def test_a_thousand_waiters_are_all_told(world: World) -> None:
    first, *_ = world.make_plan()
    first.gate = asyncio.Event()
    async with world.running(settings=EngineSettings(resync_s=3600, trim_every_s=1e9)) as engine:
        operation = await accepted(engine)
        waiters = [asyncio.ensure_future(engine.wait(operation, LONG_S)) for _ in range(1000)]
        first.gate.set()
        done = await asyncio.gather(*waiters)
    assert {operation.state for operation in done} == {State.SUCCEEDED}


async def test_waiting_ends_at_its_time_limit_with_the_operation_as_it_is(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    operation = await accepted(engine)
    waiting = asyncio.ensure_future(engine.wait(operation, 5))
    world.clock.advance(await world.clock.until_asleep_for(5))
    assert (await waiting).state is State.QUEUED


async def test_no_row_is_owned_after_a_clean_stop(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        for number in range(20):
            await accepted(engine, wanting(f"s{number}"))
    owned = await world.database.read(
        lambda conn: conn.execute(select(operations.c.id).where(operations.c.owner.is_not(None))).all()
    )
    assert owned == []
