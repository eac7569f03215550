import asyncio

import pytest
from controller.operations import AlreadyThere, IdempotencyKey, IdempotencyKeyReused, OperationInProgress
from operations_fakes import World, wanting

KEY = IdempotencyKey("local POST /things", "k1", "hash-1")


async def test_the_same_request_gets_the_same_operation(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    first = await engine.submit(wanting(), idempotency=KEY)
    again = await engine.submit(wanting(), idempotency=KEY)
    assert first.operation is not None
    assert again.operation is not None
    assert first.operation.id == again.operation.id
    assert (first.replayed, again.replayed) == (False, True)


async def test_another_request_under_the_key_is_refused(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    await engine.submit(wanting(), idempotency=KEY)
    with pytest.raises(IdempotencyKeyReused):
        await engine.submit(wanting(), idempotency=IdempotencyKey(KEY.scope, KEY.key, "hash-2"))


async def test_the_key_counts_in_its_scope_only(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    await engine.submit(wanting(), idempotency=KEY)
    other = await engine.submit(
        wanting("s2"), idempotency=IdempotencyKey("local DELETE /things", "k1", "hash-2")
    )
    assert not other.replayed


async def test_twenty_at_once_make_one_operation(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    answers = await asyncio.gather(*(engine.submit(wanting(), idempotency=KEY) for _ in range(20)))
    assert len({answer.operation.id for answer in answers if answer.operation is not None}) == 1
    assert sum(answer.replayed for answer in answers) == 19


async def test_an_answer_without_an_operation_is_replayed_too(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    await engine.submit(lambda conn: AlreadyThere({"n": 1}), idempotency=KEY)
    again = await engine.submit(lambda conn: AlreadyThere({"n": 2}), idempotency=KEY)
    assert (again.response, again.replayed) == ({"n": 1}, True)


async def test_a_refused_request_is_not_kept(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    holder = await engine.submit(wanting())
    with pytest.raises(OperationInProgress):
        await engine.submit(wanting(), idempotency=KEY)
    assert holder.operation is not None
    await engine.cancel(holder.operation.id)
    assert not (await engine.submit(wanting(), idempotency=KEY)).replayed


async def test_a_key_is_forgotten_after_48_hours(world: World) -> None:
    world.make_plan()
    engine = world.engine()
    await engine.submit(wanting(), idempotency=KEY)
    world.clock.advance(48 * 3600 + 1)
    answer = await engine.submit(wanting("s2"), idempotency=IdempotencyKey(KEY.scope, KEY.key, "hash-2"))
    assert not answer.replayed
