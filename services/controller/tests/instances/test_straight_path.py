"""Launch, stop, start, pause, delete: through the public services, against a runner in memory."""

import asyncio

import grpc
import pytest
from controller_fakes import Cloud, ended, reason_of, refusal
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2


async def test_a_launch_with_start_ends_running(cloud: Cloud) -> None:
    instance = await cloud.launch()
    assert instance.status.state == pb.INSTANCE_STATE_RUNNING
    assert instance.desired_power == pb.DESIRED_POWER_RUNNING
    assert instance.status.nics[0].network == "user"
    assert instance.status.operation == ""
    assert cloud.runner.machines[instance.id].running
    assert cloud.store.pins == {instance.id: instance.image_digest}


async def test_a_launch_without_start_ends_stopped_and_has_no_process(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False)
    assert instance.status.state == pb.INSTANCE_STATE_STOPPED
    assert "start" not in cloud.runner.calls


async def test_stop_start_pause_resume_restart_reset(cloud: Cloud) -> None:
    await cloud.launch()
    assert (await cloud.verb("Stop")).status.state == pb.INSTANCE_STATE_STOPPED
    assert (await cloud.verb("Start")).status.state == pb.INSTANCE_STATE_RUNNING
    assert (await cloud.verb("Pause")).status.state == pb.INSTANCE_STATE_PAUSED
    assert (await cloud.verb("Resume")).status.state == pb.INSTANCE_STATE_RUNNING
    assert (await cloud.verb("Restart")).status.state == pb.INSTANCE_STATE_RUNNING
    assert (await cloud.verb("Reset")).status.state == pb.INSTANCE_STATE_RUNNING


async def test_a_delete_leaves_nothing(cloud: Cloud) -> None:
    await cloud.launch(start=False)
    await cloud.done(await cloud.ask("Delete"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await cloud.get()
    assert reason_of(refused.value)[0] == "INSTANCE_NOT_FOUND"
    assert cloud.runner.machines == {}
    assert cloud.store.pins == {}


async def test_a_running_instance_is_deleted_by_force_only(cloud: Cloud) -> None:
    await cloud.launch()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await cloud.ask("Delete")
    reason, metadata = reason_of(refused.value)
    assert reason == "INSTANCE_STATE_CONFLICT"
    assert metadata["state"] == "RUNNING"
    assert "delete(force)" in metadata["allowed"]
    await cloud.done(await cloud.ask("Delete", force=True))


async def test_what_a_call_has_answered_is_not_asked_for_again(cloud: Cloud) -> None:
    """A launch looks before it prepares, before it starts, and once more at the end."""
    await cloud.launch()
    assert cloud.runner.calls.count("get") == 3


async def test_the_stop_shows_what_it_did_to_the_guest(cloud: Cloud) -> None:
    await cloud.launch()
    operation = await cloud.done(await cloud.ask("Stop"))
    assert [stage.name for stage in operation.stages] == ["power-off", "powerdown"]


async def test_a_cancelled_launch_leaves_nothing(cloud: Cloud) -> None:
    reached = cloud.runner.at("start")
    mutation = (
        await cloud.instances.LaunchInstance(
            pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True), timeout=10
        )
    ).mutation
    await asyncio.wait_for(reached.wait(), 10)
    await cloud.operations.CancelOperation(
        operation_pb2.CancelOperationRequest(id=mutation.operation.id), timeout=10
    )
    cloud.runner.gates.pop("start").set()
    operation = await cloud.ended(mutation.operation.id)
    assert operation.state == operation_pb2.OPERATION_STATE_CANCELLED
    assert cloud.runner.machines == {}
    assert cloud.store.pins == {}
    await cloud.launch()


@pytest.mark.parametrize("by", ["cancel", "delete"])
async def test_a_launch_that_is_broken_off_while_files_are_made_leaves_none(cloud: Cloud, by: str) -> None:
    """What was begun is not observed yet: only asking for its removal removes it."""
    reached = cloud.runner.at("prepare")
    request = pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True)
    operation = (await cloud.instances.LaunchInstance(request, timeout=10)).mutation.operation.id
    await asyncio.wait_for(reached.wait(), 10)
    if by == "cancel":
        await cloud.operations.CancelOperation(operation_pb2.CancelOperationRequest(id=operation), timeout=10)
    else:
        await cloud.done(await cloud.ask("Delete"))
    assert (await cloud.ended(operation)).state == operation_pb2.OPERATION_STATE_CANCELLED
    assert cloud.runner.directories == set()


async def test_a_launch_refused_before_qemu_was_spawned_leaves_nothing(cloud: Cloud) -> None:
    cloud.runner.faults["start"] = [refusal("PORT_IN_USE")]
    mutation = (
        await cloud.instances.LaunchInstance(
            pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True), timeout=10
        )
    ).mutation
    operation = await cloud.ended(mutation.operation.id)
    assert operation.error.reason == "PORT_IN_USE"
    assert cloud.runner.machines == {}
    with pytest.raises(grpc.aio.AioRpcError):
        await cloud.get()


async def test_a_forced_stop_supersedes_a_launch_and_keeps_the_instance(cloud: Cloud) -> None:
    reached = cloud.runner.at("start")
    launch = (
        await cloud.instances.LaunchInstance(
            pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True), timeout=10
        )
    ).mutation
    await asyncio.wait_for(reached.wait(), 10)
    stop = await cloud.ask("Stop", force=True)
    cloud.runner.gates.pop("start").set()
    await cloud.done(stop)
    first = await cloud.ended(launch.operation.id)
    assert first.error.reason == "SUPERSEDED"
    assert (await cloud.get()).status.state == pb.INSTANCE_STATE_STOPPED
    assert (await cloud.verb("Start")).status.state == pb.INSTANCE_STATE_RUNNING


@pytest.mark.parametrize("ended_by", ["cancel", "failure"])
async def test_a_forced_stop_of_a_launch_that_is_undone_keeps_the_instance(
    cloud: Cloud, ended_by: str
) -> None:
    reached, undoing = cloud.runner.at("start"), cloud.runner.at("quiesce")
    if ended_by == "failure":
        cloud.runner.faults["start"] = [refusal("PORT_IN_USE")]
    request = pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True)
    launch = (await cloud.instances.LaunchInstance(request, timeout=10)).mutation.operation.id
    if ended_by == "cancel":
        await asyncio.wait_for(reached.wait(), 10)
        await cloud.operations.CancelOperation(operation_pb2.CancelOperationRequest(id=launch), timeout=10)
    await asyncio.wait_for(undoing.wait(), 10)
    stop = await cloud.ask("Stop", force=True)
    for gate in ("start", "quiesce"):
        cloud.runner.gates.pop(gate).set()
    await cloud.done(stop)
    assert (await cloud.ended(launch)).state in {
        operation_pb2.OPERATION_STATE_CANCELLED,
        operation_pb2.OPERATION_STATE_FAILED,
    }
    assert (await cloud.get()).status.state == pb.INSTANCE_STATE_STOPPED
    assert (await cloud.verb("Start")).status.state == pb.INSTANCE_STATE_RUNNING
    await cloud.verb("Stop")
    await cloud.done(await cloud.ask("Delete"))
    assert (cloud.runner.directories, cloud.store.pins) == (set(), {})


async def test_the_guests_own_poweroff_stops_it_and_changes_what_is_wanted(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.report(instance.id, **ended("GUEST_SHUTDOWN"))
    stopped = await cloud.until(lambda found: found.status.state == pb.INSTANCE_STATE_STOPPED)
    assert stopped.desired_power == pb.DESIRED_POWER_STOPPED


async def test_a_lost_machine_is_failed_with_its_reason_and_can_be_started(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.report(instance.id, **ended("VM_HOST_EXITED"))
    failed = await cloud.until(lambda found: found.status.state == pb.INSTANCE_STATE_FAILED)
    assert failed.status.reason == "VM_HOST_EXITED"
    assert failed.status.stderr_tail == "qemu: stderr"
    assert failed.desired_power == pb.DESIRED_POWER_RUNNING
    assert (await cloud.verb("Start")).status.state == pb.INSTANCE_STATE_RUNNING
