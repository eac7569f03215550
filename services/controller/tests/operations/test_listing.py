import pytest
from controller.operations import Engine, OperationFilter, PageTokenInvalid, PublicState
from operations_fakes import World, accepted, wanting


async def some(world: World, count: int) -> Engine:
    world.make_plan()
    engine = world.engine()
    for number in range(count):
        await accepted(engine, wanting(f"s{number}"))
    return engine


async def test_pages_hold_every_operation_once_newest_first(world: World) -> None:
    engine = await some(world, 7)
    seen: list[int] = []
    token = ""
    while True:
        page = await engine.list(page_size=3, page_token=token)
        seen += [operation.seq for operation in page.operations]
        token = page.next_page_token
        if not token:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]


async def test_pages_are_stable_when_operations_come(world: World) -> None:
    engine = await some(world, 4)
    first = await engine.list(page_size=2)
    await accepted(engine, wanting("new"))
    second = await engine.list(page_size=2, page_token=first.next_page_token)
    assert [operation.seq for operation in second.operations] == [2, 1]


async def test_a_token_is_bound_to_its_filter(world: World) -> None:
    engine = await some(world, 4)
    first = await engine.list(page_size=2)
    with pytest.raises(PageTokenInvalid):
        await engine.list(OperationFilter(subject="s1"), page_size=2, page_token=first.next_page_token)


@pytest.mark.parametrize("token", ["x", "!!!", "AAAA", "\u00e9"])
async def test_a_foreign_token_is_refused(world: World, token: str) -> None:
    engine = await some(world, 0)
    with pytest.raises(PageTokenInvalid):
        await engine.list(page_token=token)


async def test_filters_choose_by_subject_state_and_kind(world: World) -> None:
    engine = await some(world, 3)
    await engine.cancel("op-2")

    async def chosen(**members: object) -> list[str]:
        return [operation.id for operation in (await engine.list(OperationFilter(**members))).operations]  # type: ignore[arg-type]

    assert await chosen(subject="s0") == ["op-1"]
    assert await chosen(states=frozenset({PublicState.CANCELLED})) == ["op-2"]
    assert await chosen(states=frozenset({PublicState.PENDING})) == ["op-3", "op-1"]
    assert await chosen(kinds=frozenset({"other"})) == []
