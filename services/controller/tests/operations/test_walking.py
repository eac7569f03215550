from operations_fakes import LONG_S, World, wanting

from controller.operations import StageState, State


async def test_a_submitted_operation_runs_all_its_steps(world: World) -> None:
    world.make_plan()
    async with world.running() as engine:
        accepted = await engine.submit(wanting())
        assert accepted.operation is not None
        done = await engine.wait(accepted.operation.id, LONG_S)
    assert done.state is State.SUCCEEDED
    assert world.host.of("s1") == {"a", "b", "c"}
    assert [stage.state for stage in done.stages] == [StageState.SUCCEEDED] * 3
