"""Accepting, refusing, superseding."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from controller.operations import (
    AlreadyThere,
    Event,
    NotYet,
    Operation,
    OperationId,
    OperationInProgress,
    Problem,
    State,
    Submission,
    Supersede,
    UnknownKind,
    active_operation,
    forget_subject,
    require_idle,
)
from controller.operations.rows import operation_subjects, operations, subjects
from operations_fakes import LONG_S, World, accepted, permanent, wanting
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError


async def test_a_second_operation_on_a_subject_is_refused_with_the_first_ones_id(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    first = await accepted(engine)
    with pytest.raises(OperationInProgress) as refused:
        await engine.submit(wanting())
    assert refused.value.operation_id == first


async def test_another_subject_is_free(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    await accepted(engine, wanting("s1"))
    assert await accepted(engine, wanting("s2"))


async def test_an_operation_holds_all_its_subjects(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    await accepted(engine, wanting("s1", other_subjects=("s2",)))
    with pytest.raises(OperationInProgress):
        await engine.submit(wanting("s2"))


async def test_the_database_itself_refuses_two_holders(world: World) -> None:
    world.make_plan()
    await accepted(world.engine())

    def second(conn: Connection) -> None:
        row = conn.execute(select(operations)).one()._asdict()
        conn.execute(insert(operations).values(**{**row, "seq": None, "id": "op-x"}))

    with pytest.raises(IntegrityError):
        await world.database.write(second)


async def test_the_database_itself_refuses_two_holders_of_a_further_subject(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    await accepted(engine, wanting("s1", other_subjects=("s2",)))
    await accepted(engine, wanting("s3"))
    with pytest.raises(IntegrityError):
        await world.database.write(
            lambda conn: conn.execute(insert(operation_subjects).values(op_seq=2, subject="s2", active=True))
        )


async def test_an_unknown_kind_is_refused_and_nothing_is_written(world: World) -> None:
    world.make_plan()
    with pytest.raises(UnknownKind):
        await world.engine().submit(wanting(kind="fly"))
    assert (
        await world.database.read(
            lambda conn: conn.execute(select(func.count()).select_from(subjects)).scalar()
        )
        == 0
    )


async def test_what_prepare_raises_rolls_its_writes_back(world: World) -> None:
    world.make_plan()

    def prepare(conn: Connection) -> Submission:
        conn.execute(insert(subjects).values(id="s1", fence=7, generation=1))
        raise permanent()

    with pytest.raises(type(permanent())):
        await world.engine().submit(prepare)
    assert await world.database.read(lambda conn: conn.execute(select(subjects)).all()) == []


async def test_a_goal_that_holds_makes_no_operation(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    answer = await engine.submit(lambda conn: AlreadyThere({"state": "THERE"}))
    assert (answer.operation, answer.response) == (None, {"state": "THERE"})
    assert (await engine.list()).operations == ()


async def test_accepted_sees_the_operation_in_its_own_transaction(world: World) -> None:
    world.make_plan()
    seen: list[str | None] = []

    def note(conn: Connection, operation: Operation) -> None:
        seen.append(active_operation(conn, operation.subject))

    operation = await accepted(world.engine(), wanting(accepted=note))
    assert seen == [operation]


async def test_a_held_subject_is_not_idle_and_not_forgotten(world: World) -> None:
    world.make_plan()
    await accepted(world.engine())
    for call in (require_idle, forget_subject):
        with pytest.raises(OperationInProgress):
            await world.database.write(lambda conn, call=call: call(conn, "s1"))  # type: ignore[misc]


async def test_superseding_a_queued_operation_ends_it_at_once(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    first = await accepted(engine)
    second = await accepted(engine, wanting(supersede=Supersede.UNDO))
    old = await engine.get(first)
    assert old.state is State.CANCELLED
    assert old.error is not None
    assert (old.error.reason, old.error.metadata) == ("SUPERSEDED", {"operation": second})
    assert (await engine.get(second)).state is State.QUEUED


async def test_a_superseding_operation_waits_until_the_running_one_is_undone(world: World) -> None:
    first_step, *_ = world.make_plan()
    world.make_plan("remove", ["z"])
    async with world.running() as engine:
        first_step.gate = asyncio.Event()
        first = await accepted(engine)
        await first_step.reached.wait()
        second = await engine.submit(wanting(kind="remove", supersede=Supersede.UNDO))
        assert second.operation is not None
        assert second.operation.state is State.BLOCKED
        done = await engine.wait(second.operation.id, LONG_S)
        old = await engine.get(first)
    assert (old.state, done.state) == (State.CANCELLED, State.SUCCEEDED)
    assert old.error is not None
    assert old.error.reason == "SUPERSEDED"
    assert world.host.of("s1") == {"z"}
    assert old.finished_at is not None
    assert done.started_at is not None
    assert old.finished_at <= done.started_at


async def test_an_abandoned_operation_leaves_what_it_made_to_its_successor(world: World) -> None:
    _, second_step, _ = world.make_plan()
    world.make_plan("remove", ["z"])
    async with world.running() as engine:
        second_step.gate = asyncio.Event()
        first = await accepted(engine)
        await second_step.reached.wait()
        second = await accepted(engine, wanting(kind="remove", supersede=Supersede.ABANDON))
        await engine.wait(second, LONG_S)
        assert (await engine.get(first)).state is State.CANCELLED
    assert world.host.of("s1") == {"a", "z"}


async def test_abandoning_frees_a_subject_whose_undo_is_stuck(world: World) -> None:
    first_step, second_step, _ = world.make_plan(max_step_failures=1)
    first_step.undo_faults = [permanent() for _ in range(100)]
    world.make_plan("remove", ["z"])
    async with world.running() as engine:
        second_step.gate = asyncio.Event()
        first = await accepted(engine)
        await second_step.reached.wait()
        await engine.cancel(first)
        await world.clock.until_asleep_for(2)
        second = await accepted(engine, wanting(kind="remove", supersede=Supersede.ABANDON))
        done = await engine.wait(second, LONG_S)
    assert done.state is State.SUCCEEDED


async def test_past_the_point_of_no_return_nothing_supersedes(world: World) -> None:
    first_step, *_ = world.make_plan(point_of_no_return="a")
    async with world.running() as engine:
        first_step.gate = asyncio.Event()
        first = await accepted(engine)
        await first_step.reached.wait()
        with pytest.raises(OperationInProgress) as refused:
            await engine.submit(wanting(supersede=Supersede.ABANDON))
        first_step.gate.set()
    assert refused.value.operation_id == first


async def test_a_blocked_operation_is_cancelled_at_once(world: World) -> None:
    """Trap 9."""
    first_step, second_step, _ = world.make_plan()
    first_step.undo_faults = [permanent() for _ in range(100)]
    async with world.running() as engine:
        second_step.gate = asyncio.Event()
        await accepted(engine)
        await second_step.reached.wait()
        second = await accepted(engine, wanting(supersede=Supersede.UNDO))
        assert (await engine.cancel(second)).state is State.CANCELLED


async def test_a_newer_successor_takes_the_place_of_a_blocked_one(world: World) -> None:
    first_step, *_ = world.make_plan()
    async with world.running() as engine:
        first_step.gate = asyncio.Event()
        first = await accepted(engine)
        await first_step.reached.wait()
        second = await accepted(engine, wanting(supersede=Supersede.UNDO))
        third = await accepted(engine, wanting(supersede=Supersede.UNDO))
        first_step.gate.set()
        states = [(await engine.wait(operation, LONG_S)).state for operation in (first, second, third)]
    assert states == [State.CANCELLED, State.CANCELLED, State.SUCCEEDED]


async def test_a_blocked_operation_refuses_further_ones(world: World) -> None:
    first_step, second_step, _ = world.make_plan()
    first_step.undo_faults = [permanent() for _ in range(100)]
    async with world.running() as engine:
        second_step.gate = asyncio.Event()
        await accepted(engine)
        await second_step.reached.wait()
        await accepted(engine, wanting(supersede=Supersede.UNDO))
        with pytest.raises(OperationInProgress):
            await engine.submit(wanting())


async def test_a_blocked_operation_fails_at_its_deadline(world: World) -> None:
    first_step, second_step, _ = world.make_plan()
    first_step.undo_faults = [permanent() for _ in range(100)]
    async with world.running() as engine:
        second_step.gate = asyncio.Event()
        await accepted(engine)
        await second_step.reached.wait()
        second = await accepted(engine, wanting(supersede=Supersede.UNDO, deadline_s=30))
        while not (late := await engine.get(second)).state.finished:
            world.clock.advance(await world.clock.until_asleep_for(60))
    assert late.error is not None
    assert late.error.reason == "DEADLINE_EXCEEDED"


async def test_what_was_accepted_is_carried_out_though_its_client_has_hung_up(world: World) -> None:
    """The answer is lost, the operation is not: nothing but the submit itself wakes the engine here."""
    world.make_plan()
    async with world.running() as engine:
        await world.clock.until_asleep_for(3600)
        feed = await engine.feed.tail()
        asking = asyncio.ensure_future(engine.submit(wanting()))
        await asyncio.sleep(0)
        asking.cancel()
        async with asyncio.timeout(10):
            while (told := await anext(feed)) and isinstance(told, Event):
                if told.type == "operation.finished":
                    break
        assert (await engine.get("op-1")).state is State.SUCCEEDED
    assert asking.cancelled()


@pytest.mark.parametrize("how", ["cancel", "supersede"])
async def test_a_running_operation_is_told_though_whoever_ended_it_has_hung_up(
    world: World, how: str
) -> None:
    first_step, *_ = world.make_plan()
    world.make_plan("remove", ["z"])
    async with world.running() as engine:
        first_step.gate = asyncio.Event()
        first = await accepted(engine)
        await first_step.reached.wait()
        asking = asyncio.ensure_future(
            engine.cancel(first)
            if how == "cancel"
            else engine.submit(wanting(kind="remove", supersede=Supersede.ABANDON))
        )
        await asyncio.sleep(0)
        asking.cancel()
        async with asyncio.timeout(10):
            assert (await engine.wait(first, LONG_S)).state is State.CANCELLED
    assert asking.cancelled()


async def test_a_successor_that_comes_while_the_run_reads_its_row_again_is_heard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has obeyed the cancel, but has not yet acted on it, when the operation is abandoned as well."""
    first_step, second_step, _ = world.make_plan()
    first_step.undo_faults = [NotYet(Problem("SLOW", "")) for _ in range(1000)]
    world.make_plan("remove", ["z"])
    successors: list[OperationId] = []
    came = asyncio.Event()
    async with world.running() as engine:
        second_step.gate = asyncio.Event()
        first = await accepted(engine)
        await second_step.reached.wait()
        read = world.database.read

        async def reading(work: Callable[[Connection], Any]) -> Any:
            row = await read(work)
            if "Hold.refresh" in work.__qualname__ and not successors:
                monkeypatch.setattr(world.database, "read", read)
                successors.append(await accepted(engine, wanting(kind="remove", supersede=Supersede.ABANDON)))
                came.set()
            return row

        monkeypatch.setattr(world.database, "read", reading)
        await engine.cancel(first)
        async with asyncio.timeout(10):
            await came.wait()
            assert (await engine.wait(successors[0], LONG_S)).state is State.SUCCEEDED
        assert (await engine.get(first)).state is State.CANCELLED
