"""What is forgotten when: as the settings say, and a subject only when nothing of it is left to do."""

from datetime import timedelta

from controller.operations import (
    EngineSettings,
    IdempotencyKey,
    Retention,
    RetentionSettings,
)
from controller.operations.rows import events, idempotency, meta, operations, subjects
from operations_fakes import LONG_S, World, accepted, wanting
from sqlalchemy import Connection, column, insert, select, values
from sqlalchemy.types import String

DAY_S = 86_400.0


def retention(world: World, *living: str, **changed: object) -> Retention:
    named = values(column("id", String), name="living").data([(name,) for name in living or ("nobody",)])
    settings = RetentionSettings(living=select(named.c.id), **changed)  # type: ignore[arg-type]
    return Retention(world.database, world.clock, settings)


async def cancelled(world: World, subject: str = "s1", count: int = 1) -> None:
    engine = world.engine()
    for _ in range(count):
        await engine.cancel(await accepted(engine, wanting(subject)))


async def seqs(world: World) -> list[int]:
    query = select(operations.c.seq).order_by(operations.c.seq)
    return list(await world.database.read(lambda conn: conn.execute(query).scalars().all()))


async def known_subjects(world: World) -> list[str]:
    query = select(subjects.c.id).order_by(subjects.c.id)
    return list(await world.database.read(lambda conn: conn.execute(query).scalars().all()))


async def test_operations_are_kept_as_long_and_as_many_as_the_settings_say(world: World) -> None:
    world.make_plan()
    await cancelled(world, count=5)
    world.clock.advance(2 * DAY_S)
    await retention(world, "s1", operations=timedelta(days=3), kept_per_subject=2).trim()
    assert await seqs(world) == [1, 2, 3, 4, 5]
    await retention(world, "s1", operations=timedelta(days=1), kept_per_subject=2).trim()
    assert await seqs(world) == [4, 5]


async def test_the_floor_rises_with_the_events_that_the_settings_let_go(world: World) -> None:
    world.make_plan()
    await cancelled(world)
    last = await world.database.read(lambda conn: conn.execute(select(events.c.rev)).scalars().all())
    world.clock.advance(3600.0)
    await retention(world, events=timedelta(minutes=30)).trim()

    def look(conn: Connection) -> tuple[int, int]:
        floor = conn.execute(select(meta.c.events_floor)).scalar_one()
        return floor, len(conn.execute(select(events.c.rev)).all())

    assert await world.database.read(look) == (max(last), 0)


async def test_a_key_is_answered_as_long_as_the_settings_say(world: World) -> None:
    world.make_plan()
    settings = EngineSettings(
        resync_s=3600, trim_every_s=1e9, retention=RetentionSettings(keys=timedelta(hours=1))
    )
    engine = world.engine(settings=settings)
    key = IdempotencyKey("s", "k", "h")
    first = await engine.submit(wanting(), idempotency=key)
    assert first.operation is not None
    await engine.cancel(first.operation.id)
    world.clock.advance(3599)
    assert (await engine.submit(wanting(), idempotency=key)).replayed
    world.clock.advance(2)
    assert not (await engine.submit(wanting(), idempotency=key)).replayed


async def test_the_history_of_a_subject_that_is_gone_goes_with_age_and_then_its_fence(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        await engine.wait(await accepted(engine, wanting("gone")), LONG_S)
    world.clock.advance(29 * DAY_S)
    await retention(world, "s1").trim()
    assert await known_subjects(world) == ["gone"]
    world.clock.advance(2 * DAY_S)
    await retention(world, "s1").trim()
    assert (await seqs(world), await known_subjects(world)) == ([], [])


async def test_a_subject_that_lives_keeps_its_fence_though_it_has_no_history(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        first = await engine.wait(await accepted(engine), LONG_S)
        world.clock.advance(31 * DAY_S)
        await retention(world, "s1", kept_per_subject=0).trim()
        assert (await seqs(world), await known_subjects(world)) == ([], ["s1"])
        second = await engine.wait(await accepted(engine), LONG_S)
    assert second.fence > first.fence
    assert second.seq > first.seq


async def test_a_subject_whose_removal_is_not_finished_is_never_forgotten(world: World) -> None:
    """Its fence is what shuts out whatever is still in flight."""
    world.make_plan()
    await accepted(world.engine(), wanting("leaving"))
    world.clock.advance(400 * DAY_S)
    await retention(world, "s1").trim()
    assert await known_subjects(world) == ["leaving"]


async def test_without_a_word_on_what_lives_no_subject_is_forgotten(world: World) -> None:
    world.make_plan()
    await cancelled(world)
    world.clock.advance(400 * DAY_S)
    await Retention(world.database, world.clock, RetentionSettings(kept_per_subject=0)).trim()
    assert (await seqs(world), await known_subjects(world)) == ([], ["s1"])


async def test_a_round_of_retention_takes_subjects_in_batches(world: World) -> None:
    rows = [{"id": f"old-{number:05d}", "fence": 1, "generation": 0} for number in range(2100)]
    await world.database.write(lambda conn: conn.execute(insert(subjects), rows))
    assert await retention(world, "s1").trim() == 2100


async def test_keys_of_other_requests_stay(world: World) -> None:
    world.make_plan()
    await world.engine().submit(wanting(), idempotency=IdempotencyKey("s", "k", "h"))
    world.clock.advance(47 * 3600)
    await retention(world, "s1").trim()
    found = await world.database.read(lambda conn: conn.execute(select(idempotency.c.key)).scalars().all())
    assert list(found) == ["k"]
