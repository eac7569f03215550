import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from controller.operations import (
    AlreadyThere,
    CursorExpired,
    CursorInvalid,
    EngineSettings,
    Event,
    Gap,
    IdempotencyKey,
    Outbox,
    Position,
    Retention,
)
from controller.operations.cursor import encode
from controller.operations.rows import events, idempotency, meta, operations
from operations_fakes import LONG_S, World, accepted, wanting
from sqlalchemy import insert, select, update


async def append(world: World, count: int, prefix: str = "e") -> None:
    outbox = Outbox(world.clock)

    def write(conn: object) -> None:
        for number in range(count):
            outbox.append(conn, f"{prefix}{number}", "s1")  # type: ignore[arg-type]

    await world.database.write(write)


async def take(feed: AsyncIterator[Event | Gap], count: int) -> list[str]:
    taken: list[str] = []
    async for item in feed:
        assert isinstance(item, Event)
        taken.append(item.type)
        if len(taken) == count:
            return taken
    return taken


async def test_a_reader_without_a_cursor_starts_now(world: World) -> None:
    async with world.running() as engine:
        await append(world, 3, "old")
        feed = await engine.feed.tail()
        await append(world, 2, "new")
        assert await take(feed, 2) == ["new0", "new1"]


async def test_a_cursor_replays_what_came_after_it_and_goes_on_live(world: World) -> None:
    await append(world, 700)
    async with world.running() as engine:
        start = encode(await epoch_of(world), 0)
        feed = await engine.feed.tail(start)
        reading = asyncio.ensure_future(take(feed, 702))
        await append(world, 2, "live")
        taken = await reading
    assert taken == [f"e{number}" for number in range(700)] + ["live0", "live1"]


async def test_each_event_carries_the_cursor_that_continues_after_it(world: World) -> None:
    await append(world, 3)
    async with world.running() as engine:
        feed = await engine.feed.tail(encode(await epoch_of(world), 0))
        first = await anext(feed)
        assert isinstance(first, Event)
        assert await take(await engine.feed.tail(first.cursor), 2) == ["e1", "e2"]


@pytest.mark.parametrize("cursor", ["", "garbage", "AAAA", "Zm9vOi0x", "\u00e9"])
async def test_a_cursor_that_is_not_ours_is_invalid(world: World, cursor: str) -> None:
    async with world.running() as engine:
        with pytest.raises(CursorInvalid):
            await engine.feed.tail(cursor)


async def test_a_cursor_of_another_epoch_is_expired(world: World) -> None:
    async with world.running() as engine:
        with pytest.raises(CursorExpired):
            await engine.feed.tail(encode("feedc0de", 0))


async def test_a_cursor_below_the_floor_is_expired_and_one_at_it_is_not(world: World) -> None:
    await append(world, 5)
    epoch, fourth, fifth = await epoch_of(world), await position(world, 4), await position(world, 5)
    world.clock.advance(8 * 86400)
    await append(world, 1, "young")
    await Retention(world.database, world.clock).trim()
    async with world.running() as engine:
        with pytest.raises(CursorExpired):
            await engine.feed.tail(encode(epoch, fourth.rev, fourth.xid))
        assert await take(await engine.feed.tail(encode(epoch, fifth.rev, fifth.xid)), 1) == ["young0"]


async def test_a_slow_watcher_gets_a_gap_and_is_closed(world: World) -> None:
    settings = EngineSettings(resync_s=3600, trim_every_s=1e9, watcher_queue=3)
    async with world.running(settings=settings) as engine:
        slow = await engine.feed.tail()
        quick = await engine.feed.tail()
        first = [asyncio.ensure_future(take(watcher, 1)) for watcher in (slow, quick)]
        while len(engine.feed._watchers) < 2:  # noqa: ASYNC110 - a turn of the loop is all it takes
            await asyncio.sleep(0)
        await append(world, 1, "first")
        assert await asyncio.gather(*first) == [["first0"], ["first0"]]
        for number in range(5):
            await append(world, 1, f"n{number}-")
            assert await take(quick, 1) == [f"n{number}-0"]
        rest = [item async for item in slow]
    assert [item.type for item in rest[:-1] if isinstance(item, Event)] == ["n0-0", "n1-0", "n2-0"]
    assert isinstance(rest[-1], Gap)


async def test_a_list_followed_from_now_misses_nothing(world: World) -> None:
    await append(world, 2)
    async with world.running() as engine:
        cursor = await engine.feed.now()
        await append(world, 1, "next")
        assert await take(await engine.feed.tail(cursor), 1) == ["next0"]


async def test_numbers_are_not_used_again_after_retention(world: World) -> None:
    """Trap 10: neither positions of events nor those of operations."""
    world.make_plan()
    engine = world.engine()
    await engine.cancel(await accepted(engine))
    before = await world.database.read(lambda conn: conn.execute(select(events.c.rev)).scalars().all())
    world.clock.advance(8 * 86400)
    await Retention(world.database, world.clock).trim()
    await world.database.write(lambda conn: conn.execute(operations.delete()))
    again = await engine.get(await accepted(engine))
    after = await world.database.read(lambda conn: conn.execute(select(events.c.rev)).scalars().all())
    assert again.seq == 2
    assert min(after) > max(before)


async def test_a_fence_goes_on_rising_after_retention(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        first = await engine.wait(await accepted(engine), LONG_S)
        await world.database.write(lambda conn: conn.execute(operations.delete()))
        second = await engine.wait(await accepted(engine), LONG_S)
    assert second.fence > first.fence


async def test_operations_are_kept_30_days_and_the_last_20_of_a_subject_for_ever(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    for _ in range(23):
        await engine.cancel(await accepted(engine))
    await Retention(world.database, world.clock).trim()
    assert len((await engine.list(page_size=100)).operations) == 23
    world.clock.advance(timedelta(days=31).total_seconds())
    await Retention(world.database, world.clock).trim()
    assert [operation.seq for operation in (await engine.list(page_size=100)).operations] == list(
        range(23, 3, -1)
    )


async def test_an_unfinished_operation_is_never_trimmed(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    await accepted(engine)
    world.clock.advance(timedelta(days=400).total_seconds())
    await Retention(world.database, world.clock).trim()
    assert len((await engine.list()).operations) == 1


async def test_expired_keys_are_trimmed(world: World) -> None:
    world.make_plan()
    await world.engine().submit(lambda conn: AlreadyThere({}), idempotency=IdempotencyKey("s", "k", "h"))
    world.clock.advance(48 * 3600 + 1)
    await Retention(world.database, world.clock).trim()
    assert await world.database.read(lambda conn: conn.execute(select(idempotency)).all()) == []


async def test_retention_removes_more_than_one_batch(world: World) -> None:
    await world.database.write(
        lambda conn: conn.execute(
            insert(events),
            [
                {"ts": world.clock.now(), "epoch": "e", "tenant": "t", "fence": 0, "type": "x", "data": {}}
                for _ in range(2500)
            ],
        )
    )
    world.clock.advance(8 * 86400)
    assert await Retention(world.database, world.clock).trim() == 2500


async def epoch_of(world: World) -> str:
    return await world.database.read(lambda conn: conn.execute(select(meta.c.db_epoch)).scalar_one())


async def position(world: World, number: int) -> Position:
    """Return where the event of that number, counted from 1, stands."""
    chosen = (
        select(events.c.xid, events.c.rev).order_by(events.c.xid, events.c.rev).offset(number - 1).limit(1)
    )
    row = await world.database.read(lambda conn: conn.execute(chosen).one())
    return Position(row.xid, row.rev)


async def test_a_watcher_that_falls_below_the_floor_while_replaying_gets_a_gap(world: World) -> None:
    await append(world, 1200)
    async with world.running() as engine:
        feed = await engine.feed.tail(encode(await epoch_of(world), 0))
        await take(feed, 1)
        floor = await position(world, 1100)
        await world.database.write(
            lambda conn: conn.execute(update(meta).values(events_floor=floor.rev, events_floor_xid=floor.xid))
        )
        rest = [item async for item in feed]
    assert isinstance(rest[-1], Gap)


async def test_another_subject_submitted_meanwhile_is_told_of_too(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        feed = await engine.feed.tail()
        await accepted(engine, wanting("s7"))
        first = await anext(feed)
    assert isinstance(first, Event)
    assert (first.subject, first.type) == ("s7", "operation.created")
