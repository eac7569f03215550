"""Protection, and instances whose time runs out."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller_fakes import Cloud, FakeRunner, FakeStore, SteppedClock, pointers_of, reason_of, running_cloud
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2


async def refused(cloud: Cloud, verb: str, **fields: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.ask(verb, **fields)
    return caught.value


async def operations(cloud: Cloud) -> list[operation_pb2.Operation]:
    answer = await cloud.operations.ListOperations(operation_pb2.ListOperationsRequest(), timeout=10)
    return list(answer.operations)


async def test_a_protected_instance_is_not_deleted_by_force_neither(cloud: Cloud) -> None:
    await cloud.launch(protected=True)
    for force in (False, True):
        assert reason_of(await refused(cloud, "Delete", force=force))[0] == "INSTANCE_PROTECTED"
    await cloud.verb("Stop")
    assert reason_of(await refused(cloud, "Delete"))[0] == "INSTANCE_PROTECTED"
    assert not (await cloud.verb("Update", protected=False)).protected
    await cloud.done(await cloud.ask("Delete"))


async def test_an_instance_is_deleted_when_its_ttl_has_run_out(cloud: Cloud, clock: SteppedClock) -> None:
    instance = await cloud.launch(ttl="2h")
    ends = instance.expire_time.ToDatetime(UTC) - instance.create_time.ToDatetime(UTC)
    assert ends.total_seconds() == 7200
    clock.advance(7100)
    await cloud.verb("Pause")
    clock.advance(101)
    await cloud.gone()
    deletion = (await operations(cloud))[0]
    assert (deletion.kind, deletion.initiator) == ("delete", "system")
    assert cloud.runner.machines == {}
    assert cloud.store.pins == {}


async def test_on_expire_stop_stops_and_keeps_it_and_it_is_not_started_again(
    cloud: Cloud, clock: SteppedClock
) -> None:
    await cloud.launch(ttl="1h", on_expire="stop")
    clock.advance(3601)
    stopped = await cloud.until(lambda found: found.status.state == pb.INSTANCE_STATE_STOPPED)
    assert stopped.status.reason == "EXPIRED"
    assert stopped.desired_power == pb.DESIRED_POWER_STOPPED
    assert reason_of(await refused(cloud, "Start"))[0] == "INSTANCE_EXPIRED"
    assert not (await cloud.verb("Update", ttl="")).HasField("expire_time")
    assert (await cloud.verb("Start")).status.state == pb.INSTANCE_STATE_RUNNING


async def test_a_protected_one_is_only_stopped_and_deleted_once_it_is_not_protected_any_more(
    cloud: Cloud, clock: SteppedClock
) -> None:
    await cloud.launch(ttl="1h", protected=True)
    clock.advance(3601)
    stopped = await cloud.until(lambda found: found.status.state == pb.INSTANCE_STATE_STOPPED)
    assert "protected" in stopped.status.message
    await cloud.ask("Update", protected=False)
    await cloud.gone()


async def test_a_controller_that_was_down_at_that_moment_deletes_when_it_is_back(
    tmp_path: Path, clock: SteppedClock
) -> None:
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store, clock) as cloud:
        await cloud.launch(ttl="1h")
    clock.advance(3601)
    async with running_cloud(tmp_path, runner, store, clock) as cloud:
        await cloud.gone()


async def test_a_deletion_that_a_crash_interrupted_is_not_filed_twice(
    tmp_path: Path, clock: SteppedClock
) -> None:
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store, clock) as cloud:
        await cloud.launch(ttl="1h")
        reached = runner.at("delete")
        clock.advance(3601)
        await asyncio.wait_for(reached.wait(), 10)
    runner.gates.clear()
    async with running_cloud(tmp_path, runner, store, clock) as cloud:
        await cloud.gone()
        assert [found.kind for found in await operations(cloud)] == ["delete", "launch"]


async def test_a_runner_that_is_away_is_waited_for(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(ttl="1h")
    cloud.runner.break_off()
    await cloud.until(lambda found: found.status.conditions[0].reason == "RUNNER_UNREACHABLE")
    clock.advance(3601)
    cloud.runner.away = False
    await cloud.gone()


async def test_a_clock_that_is_set_back_postpones_an_expire_time(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(ttl="1h")
    clock.set_wall(-7200)
    clock.advance(3601)
    assert (await cloud.verb("Pause")).status.state == pb.INSTANCE_STATE_PAUSED
    clock.set_wall(7200)
    clock.advance(61)
    await cloud.gone()


PAST, FUTURE = "2001-01-01T00:00:00Z", "2100-01-01T00:00:00+01:00"


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"ttl": "0s"}, {"/ttl"}),
        ({"ttl": "soon"}, {"/ttl"}),
        ({"expire_time": PAST}, {"/expireTime"}),
        ({"expire_time": "tomorrow"}, {"/expireTime"}),
        ({"expire_time": "2100-02-30T00:00:00Z"}, {"/expireTime"}),
        ({"expire_time": "0001-01-01T00:00:00+23:00"}, {"/expireTime"}),
        ({"ttl": "1h", "expire_time": FUTURE}, {"/expireTime"}),
        ({"on_expire": "explode"}, {"/onExpire"}),
        ({"restart_policy": "sometimes", "on_expire": "x"}, {"/restartPolicy", "/onExpire"}),
    ],
)
async def test_policies_that_cannot_be_are_refused_at_launch_and_in_a_patch(
    cloud: Cloud, fields: dict[str, Any], pointers: set[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.launch(**fields)
    assert pointers_of(caught.value) == pointers
    await cloud.launch(start=False)
    assert pointers_of(await refused(cloud, "Update", **fields)) == pointers


async def test_a_ttl_that_has_run_out_since_the_creation_is_refused(
    cloud: Cloud, clock: SteppedClock
) -> None:
    await cloud.launch()
    clock.advance(7200)
    assert pointers_of(await refused(cloud, "Update", ttl="1h")) == {"/ttl"}
    assert (await cloud.verb("Update", ttl="3h")).HasField("expire_time")


async def test_policies_are_shown_as_they_were_given_and_cleared_by_nothing(cloud: Cloud) -> None:
    given = await cloud.launch(
        restart_policy="always", autostart=True, expire_time=FUTURE, on_expire="stop", protected=True
    )
    assert given.expire_time.ToDatetime(UTC) == datetime(2099, 12, 31, 23, tzinfo=UTC)
    assert (given.restart_policy, given.on_expire, given.autostart) == ("always", "stop", True)
    unchanged = await cloud.verb("Update", labels={"a": "b"})
    assert (unchanged.restart_policy, unchanged.autostart, unchanged.protected) == ("always", True, True)
    cleared = await cloud.verb(
        "Update", restart_policy="", autostart=False, expire_time="", on_expire="", protected=False
    )
    assert (cleared.restart_policy, cleared.on_expire) == ("never", "delete")
    assert (cleared.autostart, cleared.protected) == (False, False)
    assert not cleared.HasField("expire_time")
