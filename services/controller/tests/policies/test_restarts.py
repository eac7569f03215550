"""Restarting what has ended: by policy, with delays and a limit, and after the host was away."""

import asyncio
from pathlib import Path

import pytest
from controller_fakes import Cloud, FakeRunner, FakeStore, SteppedClock, ended, refusal, running_cloud
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2

from .conftest import RULES

RUNNING, FAILED, STOPPED = pb.INSTANCE_STATE_RUNNING, pb.INSTANCE_STATE_FAILED, pb.INSTANCE_STATE_STOPPED


async def lose(cloud: Cloud, reason: str = "QEMU_EXITED") -> pb.Instance:
    """End the machine and return the instance that waits for its restart."""
    instance = await cloud.get()
    cloud.runner.report(instance.id, **ended(reason))
    return await cloud.until(lambda found: found.status.state in {FAILED, STOPPED})


async def running_again(cloud: Cloud, restarts: int) -> pb.Instance:
    return await cloud.until(
        lambda found: found.status.state == RUNNING and found.status.restart_count == restarts
    )


async def test_a_machine_that_was_lost_is_started_again_by_the_system(
    cloud: Cloud, clock: SteppedClock
) -> None:
    await cloud.launch(restart_policy="on-failure")
    failed = await lose(cloud)
    assert failed.status.reason == "QEMU_EXITED"
    assert failed.status.HasField("next_restart_time")
    clock.advance(RULES.delay_s)
    again = await running_again(cloud, 1)
    assert not again.status.HasField("next_restart_time")
    listed = await cloud.operations.ListOperations(operation_pb2.ListOperationsRequest(), timeout=10)
    assert (listed.operations[0].kind, listed.operations[0].initiator) == (
        "start",
        "system",
    )


async def test_after_the_limit_it_stays_failed_and_a_user_starts_it_anew(
    cloud: Cloud, clock: SteppedClock
) -> None:
    await cloud.launch(restart_policy="on-failure")
    for number in range(RULES.limit):
        await lose(cloud)
        clock.advance(RULES.delay_before(number).total_seconds())
        await running_again(cloud, number + 1)
    failed = await lose(cloud)
    assert failed.status.reason == "RESTART_LIMIT_REACHED"
    assert failed.status.stderr_tail
    assert not failed.status.HasField("next_restart_time")
    started = await cloud.verb("Start")
    assert (started.status.state, started.status.restart_count) == (RUNNING, 0)


async def test_a_stable_run_is_told_as_one(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(restart_policy="on-failure")
    await lose(cloud)
    clock.advance(RULES.delay_s)
    await running_again(cloud, 1)
    clock.advance(RULES.reset_s)
    await running_again(cloud, 0)


async def test_a_guest_that_powers_itself_off_is_restarted_only_always(
    cloud: Cloud, clock: SteppedClock
) -> None:
    await cloud.launch(restart_policy="on-failure")
    stopped = await lose(cloud, "GUEST_SHUTDOWN")
    assert stopped.status.state == STOPPED
    await cloud.until(lambda found: found.desired_power == pb.DESIRED_POWER_STOPPED)
    await cloud.verb("Update", restart_policy="always")
    await cloud.verb("Start")
    stopped = await lose(cloud, "GUEST_SHUTDOWN")
    assert stopped.desired_power == pb.DESIRED_POWER_RUNNING
    clock.advance(RULES.delay_s)
    await running_again(cloud, 1)


async def test_a_users_stop_ends_the_waiting_for_a_restart(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(restart_policy="always")
    await lose(cloud)
    stopped = await cloud.verb("Stop")
    assert not stopped.status.HasField("next_restart_time")
    clock.advance(3600)
    assert (await cloud.verb("Update", labels={"a": "b"})).status.state == STOPPED
    assert cloud.runner.calls.count("start") == 1


async def test_a_policy_that_is_patched_judges_how_it_ended(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch()
    assert not (await lose(cloud)).status.HasField("next_restart_time")
    planned = await cloud.verb("Update", restart_policy="on-failure")
    assert planned.status.HasField("next_restart_time")
    unplanned = await cloud.verb("Update", restart_policy="never")
    assert not unplanned.status.HasField("next_restart_time")
    await cloud.verb("Update", restart_policy="always")
    clock.advance(RULES.delay_s)
    await running_again(cloud, 1)


async def test_a_restart_that_fails_is_tried_again_later(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(restart_policy="always")
    await lose(cloud, "GUEST_SHUTDOWN")
    cloud.runner.faults["start"] = [refusal("HOST_CAPACITY_EXHAUSTED")]
    clock.advance(RULES.delay_s)
    failed = await cloud.until(lambda found: found.status.reason == "START_FAILED")
    assert "HOST_CAPACITY_EXHAUSTED" in failed.status.message
    assert failed.status.state == FAILED
    assert failed.status.restart_count == 1
    clock.advance(2 * RULES.delay_s)
    await running_again(cloud, 2)


async def test_an_autostart_that_fails_is_left_to_the_restart_policy(
    cloud: Cloud, clock: SteppedClock
) -> None:
    await cloud.launch(autostart=True)
    cloud.runner.faults["start"] = [refusal("HOST_CAPACITY_EXHAUSTED") for _ in range(3)]
    cloud.runner.report((await cloud.get()).id, **ended("HOST_SHUTDOWN"))
    failed = await cloud.until(lambda found: found.status.reason == "START_FAILED")
    assert not failed.status.HasField("next_restart_time")
    assert len(cloud.runner.faults["start"]) == 2


async def test_a_cancelled_restart_is_not_tried_again(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(restart_policy="on-failure")
    await lose(cloud)
    reached = cloud.runner.at("start")
    clock.advance(RULES.delay_s)
    await asyncio.wait_for(reached.wait(), 10)
    operation = (await cloud.get()).status.operation
    await cloud.operations.CancelOperation(operation_pb2.CancelOperationRequest(id=operation), timeout=10)
    cloud.runner.gates.clear()
    stopped = await cloud.until(lambda found: found.desired_power == pb.DESIRED_POWER_STOPPED)
    assert not stopped.status.HasField("next_restart_time")


@pytest.mark.parametrize("reason", ["HOST_SHUTDOWN", "HOST_RESTARTED", "VM_HOST_EXITED"])
async def test_autostart_starts_what_ended_with_its_host(
    tmp_path: Path, clock: SteppedClock, reason: str
) -> None:
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store, clock, restart_rules=RULES) as cloud:
        instance = await cloud.launch("web-1", autostart=True)
        await cloud.launch("web-2")
    for machine in list(runner.machines):
        runner.report(machine, **ended(reason))

    def started_again(found: pb.Instance) -> bool:
        # RUNNING is also what it was before anybody has looked.
        return found.status.state == RUNNING and runner.machines[instance.id].incarnation == 2

    async with running_cloud(tmp_path, runner, store, clock, restart_rules=RULES) as cloud:
        await cloud.until(lambda found: found.status.state in {FAILED, STOPPED}, "web-2")
        await cloud.until(lambda found: found.status.HasField("next_restart_time") or started_again(found))
        clock.advance(RULES.delay_s)
        await cloud.until(started_again)
        assert (await cloud.get("web-2")).status.reason == reason


async def test_a_controller_that_was_down_restarts_when_it_is_back_and_keeps_counting(
    tmp_path: Path, clock: SteppedClock
) -> None:
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store, clock, restart_rules=RULES) as cloud:
        await cloud.launch(restart_policy="on-failure")
        await lose(cloud)
    clock.advance(RULES.delay_s)
    async with running_cloud(tmp_path, runner, store, clock, restart_rules=RULES) as cloud:
        await running_again(cloud, 1)
        reached = runner.at("start")
        await lose(cloud)
        clock.advance(2 * RULES.delay_s)
        await asyncio.wait_for(reached.wait(), 10)
    # Ended in the middle of the restart: it is gone on with, not counted a second time.
    runner.gates.clear()
    async with running_cloud(tmp_path, runner, store, clock, restart_rules=RULES) as cloud:
        await running_again(cloud, 2)
        assert runner.machines[(await cloud.get()).id].incarnation == 3
