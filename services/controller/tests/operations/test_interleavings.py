"""Any order of steps ending, cancelling, stopping, crashing, superseding: one end, and the host agrees."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from controller.database import Database, Target
from controller.operations import Engine, NotCancellable, OperationInProgress, State, Supersede
from controller.operations.rows import events
from controller_databases import KINDS, empty_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations_fakes import LONG_S, World, accepted, permanent, wanting
from sqlalchemy import func, select

ACTS = st.lists(
    st.sampled_from(["turn", "turns", "write", "cancel", "stop", "crash", "fail", "supersede", "abandon"]),
    max_size=14,
)


async def live_through(acts: list[str], target: Target) -> None:
    async with Database(target) as database:
        world = World(target, database)
        steps = world.make_plan()
        ids = [await accepted(world.engine())]
        engine, running = begin(world)
        for act in acts:
            match act:
                case "turn":
                    await asyncio.sleep(0)
                case "turns":
                    for _ in range(7):
                        await asyncio.sleep(0)
                case "write":
                    await database.write(lambda conn: None)
                case "cancel":
                    try:
                        await engine.cancel(ids[-1])
                    except NotCancellable:
                        assert (await engine.get(ids[-1])).state.finished
                case "supersede" | "abandon":
                    how = Supersede.UNDO if act == "supersede" else Supersede.ABANDON
                    try:
                        ids.append(await accepted(engine, wanting(supersede=how)))
                    except OperationInProgress:
                        raise AssertionError("nothing here is past a point of no return") from None
                case "stop":
                    await engine.stop()
                    await running
                    engine, running = begin(world)
                case "crash":
                    running.cancel()
                    await asyncio.wait({running})
                    await world.lapse()
                    engine, running = begin(world)
                case "fail":
                    steps[-1].faults = [permanent()]
        done = [await engine.wait(operation, LONG_S) for operation in ids]
        await engine.stop()
        await running
        ended = await database.read(
            lambda conn: conn.execute(
                select(events.c.op_id, func.count())
                .where(events.c.type == "operation.finished")
                .group_by(events.c.op_id)
            ).all()
        )
    assert sorted(ended) == sorted((operation, 1) for operation in ids)
    assert sorted(operation for operation, _ in world.hooks.settled) == sorted(ids)
    # What an abandoned operation left is its successor's to deal with, and this plan does not.
    if "abandon" not in acts:
        succeeded = {operation.id for operation in done if operation.state is State.SUCCEEDED}
        assert set(world.host.objects.values()) == succeeded
        assert world.host.of("s1") == ({"a", "b", "c"} if succeeded else set())


def begin(world: World) -> tuple[Engine, "asyncio.Task[None]"]:
    engine = world.engine()
    return engine, asyncio.ensure_future(engine.run())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTS)
def test_there_is_one_end_and_the_host_is_as_it_says(kind: str, acts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, empty_database(kind, Path(folder)) as target:
        asyncio.run(asyncio.wait_for(live_through(acts, target), 60))
