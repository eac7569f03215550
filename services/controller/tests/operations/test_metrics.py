"""What an operator can see of the engine, and that it is so at the moment of asking."""

import asyncio
from typing import Any

import pytest
from controller.operations import EngineSettings, PeerUnavailable, Problem
from controller.operations.claim import claim
from operations_fakes import LONG_S, World, accepted, permanent, wanting
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, event

PREFIX = "qcontroller_"

# Its write-ahead log, and the form in which it explains a query.
of_sqlite = pytest.mark.parametrize("target", ["sqlite"], indirect=True)


async def test_the_table_counts_how_operations_of_each_kind_ended(world: World) -> None:
    *_, last = world.make_plan()
    registry = CollectorRegistry()
    async with world.running(registry=registry) as engine:
        await engine.wait(await accepted(engine), LONG_S)
        last.faults = [permanent()]
        await engine.wait(await accepted(engine, wanting("s2")), LONG_S)
    finished = {
        state: registry.get_sample_value(
            f"{PREFIX}operations_finished_total", {"kind": "make", "state": state}
        )
        for state in ("SUCCEEDED", "FAILED", "CANCELLED")
    }
    assert finished == {"SUCCEEDED": 1, "FAILED": 1, "CANCELLED": None}
    labels = {"kind": "make", "step": "c"}
    steps = f"{PREFIX}operation_step_seconds_count"
    assert registry.get_sample_value(steps, {**labels, "result": "done"}) == 1
    assert registry.get_sample_value(steps, {**labels, "result": "failed"}) == 1
    assert registry.get_sample_value(f"{PREFIX}operation_queue_seconds_count", {"kind": "make"}) == 2


async def test_retries_are_counted_by_the_class_of_their_error(world: World) -> None:
    first, *_ = world.make_plan()
    first.faults = [PeerUnavailable(Problem("AWAY", ""))]
    registry = CollectorRegistry()
    async with world.running(registry=registry) as engine:
        operation = await accepted(engine)
        world.clock.advance(await world.clock.until_asleep_for(5))
        await engine.wait(operation, LONG_S)
    labels = {"kind": "make", "error": "PeerUnavailable"}
    assert registry.get_sample_value(f"{PREFIX}operation_retries_total", labels) == 1


async def test_what_needs_attention_is_shown_at_once_until_it_is_mended(world: World) -> None:
    first, second, _ = world.make_plan(max_step_failures=1)
    second.faults = [permanent()]
    first.undo_faults = [permanent("STUCK")]
    registry = CollectorRegistry()

    def shown() -> float | None:
        return registry.get_sample_value(f"{PREFIX}operations_needing_attention")

    async with world.running(registry=registry) as engine:
        feed = await engine.feed.tail()
        operation = await accepted(engine)
        while not (await engine.get(operation)).needs_attention:
            await anext(feed)
        delay_s = await world.clock.until_asleep_for(2)
        assert shown() == 1
        world.clock.advance(delay_s)
        await engine.wait(operation, LONG_S)
        assert shown() == 0


async def test_what_needed_attention_before_a_restart_is_shown_after_it(world: World) -> None:
    first, second, _ = world.make_plan(max_step_failures=1)
    second.faults = [permanent()]
    first.undo_faults = [permanent("STUCK")]
    async with world.doomed() as engine:
        feed = await engine.feed.tail()
        operation = await accepted(engine)
        while not (await engine.get(operation)).needs_attention:
            await anext(feed)
    registry = CollectorRegistry()
    async with world.running(registry=registry) as engine:
        await world.clock.until_asleep_for(2)
        assert registry.get_sample_value(f"{PREFIX}operations_needing_attention") == 1


async def test_the_age_of_the_queue_is_that_of_the_oldest_that_has_not_begun(world: World) -> None:
    first, *_ = world.make_plan()
    first.gate = asyncio.Event()
    registry = CollectorRegistry()
    settings = EngineSettings(slots=1, resync_s=3600, trim_every_s=1e9)
    await accepted(world.engine())
    waiting = await accepted(world.engine(), wanting("s2"))
    async with world.running(registry=registry, settings=settings) as engine:
        await first.reached.wait()
        world.clock.advance(40)
        assert registry.get_sample_value(f"{PREFIX}operation_queue_age_seconds") == 40
        first.gate.set()
        await engine.wait(waiting, LONG_S)
    assert registry.get_sample_value(f"{PREFIX}operation_queue_age_seconds") == 0


@of_sqlite
async def test_the_database_shows_its_commits_its_queue_and_its_log(world: World) -> None:
    world.make_plan()
    registry = CollectorRegistry()
    await accepted(world.engine(registry=registry))
    assert registry.get_sample_value(f"{PREFIX}database_commit_seconds_count") == 1
    assert registry.get_sample_value(f"{PREFIX}database_writer_queue") == 0
    assert (registry.get_sample_value(f"{PREFIX}database_wal_bytes") or 0) > 0


@of_sqlite
async def test_looking_for_work_reads_what_waits_and_not_what_is_past(world: World) -> None:
    """Trap 12: its cost must not grow with the history."""
    world.make_plan()
    engine = world.engine()
    await accepted(engine)
    asked: list[tuple[str, Any]] = []

    def note(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        del conn, cursor, context, many
        if statement.startswith("SELECT") and "FROM operations" in statement:
            asked.append((statement, parameters))

    def plans(conn: Connection) -> list[str]:
        return [
            str(row[3])
            for statement, parameters in asked
            for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            if "operations" in row[3]
        ]

    def look(conn: Connection) -> None:
        event.listen(conn, "before_cursor_execute", note)
        claim(conn, engine._ledger, "me", 8, frozenset())

    await world.database.write(look)
    found = await world.database.read(plans)
    assert found
    assert [plan for plan in found if "INDEX ix_operations_" not in plan] == []
