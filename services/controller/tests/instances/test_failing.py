"""FAILED: why, what is kept of it, and the ways out."""

from pathlib import Path
from typing import Any

import pytest
from controller.domain.machine import MachineExit, MachinePhase
from controller_fakes import Cloud, FakeRunner, FakeStore, refusal, running_cloud
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2

ENDS = {
    "QEMU_EXITED": MachineExit("QEMU_EXITED", "QEMU exited with code 3.", "words", "lines", code=3),
    "QEMU_KILLED": MachineExit("QEMU_KILLED", "QEMU was ended by SIGKILL.", "words", "lines", signal=9),
    "KERNEL_PANIC": MachineExit("KERNEL_PANIC", "The guest's kernel panicked.", "words", "lines", code=1),
    "VM_HOST_EXITED": MachineExit("VM_HOST_EXITED", "vm-host ended.", "words", "lines"),
    "HOST_RESTARTED": MachineExit("HOST_RESTARTED", "The host was restarted.", "words", "lines"),
}


def is_failed(instance: pb.Instance) -> bool:
    return instance.status.state == pb.INSTANCE_STATE_FAILED


async def failed(cloud: Cloud, reason: str = "QEMU_EXITED", name: str = "web-1") -> pb.Instance:
    instance = await cloud.launch(name)
    if reason == "MACHINE_LOST":
        cloud.runner.forget(instance.id)
    else:
        fell(cloud.runner, instance.id, ENDS[reason])
    return await cloud.until(is_failed, name)


def fell(runner: FakeRunner, machine_id: str, end: MachineExit) -> None:
    runner.report(machine_id, phase=MachinePhase.EXITED, run_state="", agent_connected=False, exit=end)


@pytest.mark.parametrize("reason", [*ENDS, "MACHINE_LOST"])
async def test_a_failure_has_its_reason_and_a_start_and_a_delete_lead_out(cloud: Cloud, reason: str) -> None:
    instance = await failed(cloud, reason)
    assert instance.status.reason == reason
    assert instance.status.message
    assert instance.desired_power == pb.DESIRED_POWER_RUNNING
    started = await cloud.verb("Start")
    assert started.status.state == pb.INSTANCE_STATE_RUNNING
    assert (started.status.reason, started.status.stderr_tail) == ("", "")
    assert not started.status.HasField("failure_time")
    other = await failed(cloud, reason, "web-2")
    await cloud.done(await cloud.ask("Delete", "web-2"))
    assert other.id not in cloud.runner.machines


@pytest.mark.parametrize("reason", ENDS)
async def test_how_qemu_ended_and_its_last_words_are_kept(cloud: Cloud, reason: str) -> None:
    status = (await failed(cloud, reason)).status
    assert (status.stderr_tail, status.console_tail) == ("words", "lines")
    assert status.HasField("failure_time")
    assert (status.exit_code if status.HasField("exit_code") else None) == ENDS[reason].code
    assert status.exit_signal == ("SIGKILL" if reason == "QEMU_KILLED" else "")


async def test_the_evidence_outlives_the_machine_and_the_controller(tmp_path: Path) -> None:
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store) as cloud:
        before = await failed(cloud, "QEMU_KILLED")
        runner.forget(before.id)
    async with running_cloud(tmp_path, runner, store) as cloud:
        status = (await cloud.get()).status
        assert (status.reason, status.exit_signal) == ("QEMU_KILLED", "SIGKILL")
        assert (status.stderr_tail, status.console_tail) == ("words", "lines")
        assert status.failure_time == before.status.failure_time


async def test_a_start_that_never_came_to_qemu_leaves_the_failure_as_it_was(cloud: Cloud) -> None:
    before = await failed(cloud, "KERNEL_PANIC")
    cloud.runner.faults["start"] = [refusal("HOST_CAPACITY_EXHAUSTED", "RESOURCE_EXHAUSTED")]
    operation = await cloud.ended((await cloud.ask("Start")).operation.id)
    assert operation.error.reason == "HOST_CAPACITY_EXHAUSTED"
    after = await cloud.get()
    assert is_failed(after)
    assert after.status.reason == "KERNEL_PANIC"
    assert after.status.console_tail == before.status.console_tail


async def test_a_later_failure_replaces_the_earlier_one(cloud: Cloud) -> None:
    instance = await failed(cloud, "QEMU_KILLED")
    await cloud.verb("Start")
    fell(cloud.runner, instance.id, ENDS["QEMU_EXITED"])
    status = (await cloud.until(is_failed)).status
    assert (status.reason, status.exit_code, status.exit_signal) == ("QEMU_EXITED", 3, "")


async def test_a_failed_instance_that_is_stopped_has_failed_no_more(cloud: Cloud) -> None:
    await failed(cloud)
    status = (await cloud.verb("Stop")).status
    assert (status.state, status.reason, status.stderr_tail) == (pb.INSTANCE_STATE_STOPPED, "", "")


async def test_a_guest_that_panicked_while_qemu_runs_on_is_ended_and_failed(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.report(instance.id, panicked=True)
    after = await cloud.until(is_failed)
    assert after.status.reason == "KERNEL_PANIC"
    assert after.desired_power == pb.DESIRED_POWER_RUNNING
    assert cloud.runner.machines[instance.id].phase is MachinePhase.EXITED
    assert after.status.console_tail == "last console line"
    assert (await cloud.verb("Start")).status.state == pb.INSTANCE_STATE_RUNNING


async def test_remains_that_cannot_be_ended_do_not_hold_the_truth_up(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.faults["stop"] = [refusal("MACHINE_STUCK")]
    cloud.runner.report(instance.id, run_state="internal-error")
    after = await cloud.until(is_failed)
    assert after.status.reason == "QEMU_INTERNAL_ERROR"
    assert cloud.runner.machines[instance.id].phase is MachinePhase.ACTIVE
    await cloud.done(await cloud.ask("Delete"))
    assert cloud.runner.machines == {}


async def test_a_restart_that_cannot_power_on_again_is_a_failure_and_never_said_to_run(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.faults["start"] = [refusal("HOST_CAPACITY_EXHAUSTED", "RESOURCE_EXHAUSTED")]
    operation = await cloud.ended((await cloud.ask("Restart")).operation.id)
    assert operation.state == operation_pb2.OPERATION_STATE_FAILED
    after = await cloud.get()
    assert is_failed(after)
    assert after.status.reason == "START_FAILED"
    assert "HOST_CAPACITY_EXHAUSTED happened" in after.status.message
    assert cloud.runner.machines[instance.id].phase is MachinePhase.EXITED
    assert (await cloud.verb("Start")).status.state == pb.INSTANCE_STATE_RUNNING


async def out_of_time(cloud: Cloud, **fields: Any) -> operation_pb2.Operation:
    request = pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True, **fields)
    mutation = (await cloud.instances.LaunchInstance(request, timeout=10)).mutation
    return await cloud.ended(mutation.operation.id)


async def test_a_launch_out_of_time_with_qemu_there_leaves_a_failed_instance(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, operation_deadline_s=2.0) as cloud:
        cloud.runner.at("spawned")
        operation = await out_of_time(cloud)
        assert operation.state == operation_pb2.OPERATION_STATE_FAILED
        assert operation.error.reason == "DEADLINE_EXCEEDED"
        status = (await cloud.get()).status
        assert (status.state, status.reason) == (pb.INSTANCE_STATE_FAILED, "START_FAILED")
        assert status.console_tail == "last console line"
        (machine,) = cloud.runner.machines.values()
        assert machine.phase is MachinePhase.EXITED, "no process is left"
        assert cloud.store.pins, "the image is kept for a start"
        cloud.runner.gates.clear()
        assert (await cloud.verb("Start")).status.state == pb.INSTANCE_STATE_RUNNING


async def test_a_launch_out_of_time_without_qemu_leaves_nothing(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, operation_deadline_s=2.0) as cloud:
        cloud.runner.at("start")
        assert (await out_of_time(cloud)).error.reason == "DEADLINE_EXCEEDED"
        answer = await cloud.instances.ListInstances(pb.ListInstancesRequest(), timeout=10)
        assert list(answer.instances) == []
        assert (cloud.runner.machines, cloud.store.pins) == ({}, {})


async def test_a_cancelled_launch_with_qemu_there_leaves_nothing(cloud: Cloud) -> None:
    reached = cloud.runner.at("spawned")
    request = pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True)
    mutation = (await cloud.instances.LaunchInstance(request, timeout=10)).mutation
    await reached.wait()
    await cloud.operations.CancelOperation(
        operation_pb2.CancelOperationRequest(id=mutation.operation.id), timeout=10
    )
    operation = await cloud.ended(mutation.operation.id)
    assert operation.state == operation_pb2.OPERATION_STATE_CANCELLED
    assert (cloud.runner.machines, cloud.store.pins) == ({}, {})


async def test_a_start_out_of_time_with_qemu_there_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.instances.verbs._MARGIN_S", 0.0)
    async with running_cloud(tmp_path, operation_deadline_s=2.0) as cloud:
        await cloud.launch(start=False)
        cloud.runner.at("spawned")
        operation = await cloud.ended((await cloud.ask("Start")).operation.id)
        assert operation.error.reason == "DEADLINE_EXCEEDED"
        after = await cloud.get()
        assert is_failed(after)
        assert after.desired_power == pb.DESIRED_POWER_RUNNING


async def test_a_look_that_is_refused_is_repeated_with_a_pause_and_not_in_a_circle(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.faults["get"] = [refusal("DISK_FULL", "RESOURCE_EXHAUSTED")]
    fell(cloud.runner, instance.id, ENDS["QEMU_EXITED"])
    assert (await cloud.until(is_failed)).status.reason == "QEMU_EXITED"
    answer = await cloud.operations.ListOperations(operation_pb2.ListOperationsRequest(), timeout=10)
    looks = [found for found in answer.operations if found.kind == "observe-failure"]
    assert sorted(found.state for found in looks) == [
        operation_pb2.OPERATION_STATE_SUCCEEDED,
        operation_pb2.OPERATION_STATE_FAILED,
    ]
    waited = max(look.start_time.ToDatetime() for look in looks) - min(
        look.end_time.ToDatetime() for look in looks
    )
    assert waited.total_seconds() >= 0.9
