"""What is believed of a runner that is gone, or back with another view."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from controller.domain.machine import Machine, MachineExit, MachinePhase
from controller.errors import PeerAway
from controller.operations import PeerUnavailable, Problem, StepContext
from controller.plans.power_steps import ConfirmRunning
from controller_fakes import Cloud, ended, running_cloud
from qcontroller.controller.v1 import host_pb2, operation_pb2
from qcontroller.controller.v1 import instance_pb2 as pb

UNKNOWN = pb.CONDITION_STATUS_UNKNOWN
# How to bring an instance into a state that lasts.
SETTLED: dict[str, Callable[[Cloud], Any]] = {
    "RUNNING": lambda cloud: cloud.launch(),
    "STOPPED": lambda cloud: cloud.launch(start=False),
}
# Where an operation is held up so that the state shows, and which operation.
HELD = {
    "CREATING": ("prepare", "Launch"),
    "STARTING": ("start", "Start"),
    "STOPPING": ("stop", "Stop"),
    "DELETING": ("delete", "Delete"),
}


def condition(instance: pb.Instance, kind: str = "MachineRunning") -> pb.Condition:
    return next(found for found in instance.status.conditions if found.type == kind)


def is_unknown(instance: pb.Instance) -> bool:
    return bool(condition(instance).status == UNKNOWN)


def state_of(instance: pb.Instance) -> str:
    return pb.InstanceState.Name(instance.status.state).removeprefix("INSTANCE_STATE_")


def in_state(state: str) -> Callable[[pb.Instance], bool]:
    return lambda instance: state_of(instance) == state


async def brought_to(cloud: Cloud, state: str) -> pb.Instance:
    if state in SETTLED:
        instance: pb.Instance = await SETTLED[state](cloud)
        return instance
    instance = await cloud.launch()
    if state == "PAUSED":
        return await cloud.verb("Pause")
    cloud.runner.report(instance.id, **ended("QEMU_EXITED"))
    return await cloud.until(in_state("FAILED"))


@pytest.mark.parametrize("state", ["RUNNING", "PAUSED", "STOPPED", "FAILED"])
async def test_a_runner_that_is_gone_leaves_every_state_as_it_was(cloud: Cloud, state: str) -> None:
    await brought_to(cloud, state)
    cloud.runner.break_off()
    assert state_of(await cloud.until(is_unknown)) == state
    cloud.runner.away = False
    back = await cloud.until(lambda found: not is_unknown(found))
    assert state_of(back) == state


@pytest.mark.parametrize("state", HELD)
async def test_a_runner_that_goes_in_the_middle_leaves_the_state_to_the_operation(
    cloud: Cloud, state: str
) -> None:
    call, verb = HELD[state]
    if verb != "Launch":
        await cloud.launch(start=verb == "Stop")
    reached = cloud.runner.at(call)
    if verb == "Launch":
        request = pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True)
        mutation = (await cloud.instances.LaunchInstance(request, timeout=10)).mutation
    else:
        mutation = await cloud.ask(verb)
    await asyncio.wait_for(reached.wait(), 10)
    cloud.runner.break_off()
    assert state_of(await cloud.until(is_unknown)) == state
    cloud.runner.away = False
    cloud.runner.gates.pop(call).set()
    await cloud.done(mutation)


async def test_a_launch_whose_runner_goes_until_its_deadline_fails_no_instance_before_it_is_back(
    tmp_path: Path,
) -> None:
    async with running_cloud(tmp_path, operation_deadline_s=2.0) as cloud:

        def answer_is_lost() -> None:
            cloud.runner.break_off()
            raise PeerAway("RUNNER_UNAVAILABLE", "gone")

        cloud.runner.after["start"] = answer_is_lost
        request = pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True)
        mutation = (await cloud.instances.LaunchInstance(request, timeout=10)).mutation
        wait = operation_pb2.WaitOperationRequest(id=mutation.operation.id, timeout="4s")
        operation = (await cloud.operations.WaitOperation(wait, timeout=15)).operation
        assert operation.state == operation_pb2.OPERATION_STATE_UNDOING
        seen = await cloud.get()
        assert (state_of(seen), condition(seen).status) == ("STARTING", UNKNOWN)
        cloud.runner.away = False
        assert (await cloud.ended(mutation.operation.id)).error.reason == "DEADLINE_EXCEEDED"
        assert state_of(await cloud.get()) == "FAILED"


async def test_a_machine_that_was_seen_to_run_runs_until_the_runner_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: ConfirmRunning, ctx: StepContext) -> None:
        raise PeerUnavailable(Problem("RUNNER_UNAVAILABLE", "gone"))

    monkeypatch.setattr(ConfirmRunning, "do", away)
    async with running_cloud(tmp_path, operation_deadline_s=2.0) as cloud:
        request = pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True)
        mutation = (await cloud.instances.LaunchInstance(request, timeout=10)).mutation
        operation = await cloud.ended(mutation.operation.id)
        assert operation.state == operation_pb2.OPERATION_STATE_FAILED
        assert state_of(await cloud.get()) == "RUNNING"


async def come_back_with(cloud: Cloud, *machines: Machine) -> None:
    """Have the runner come back, its first word being `machines`."""
    cloud.runner.break_off()
    await cloud.until(is_unknown)
    cloud.runner.snapshot = {machine.id: machine for machine in machines}
    cloud.runner.away = False
    await cloud.until(lambda found: not is_unknown(found))


def older(cloud: Cloud, machine_id: str, **changes: Any) -> Machine:
    """Return a view of a machine that predates its last operation."""
    now = cloud.runner.machines[machine_id]
    fence = cloud.runner.fences[machine_id]
    return replace(now, fence=fence - 1, revision=0, **changes)


@pytest.mark.parametrize("incarnation", [0, 1])
async def test_an_older_view_undoes_nothing_and_is_looked_at_again(cloud: Cloud, incarnation: int) -> None:
    instance = await cloud.launch()
    stream = cloud.events.WatchEvents(host_pb2.WatchEventsRequest())
    await stream.initial_metadata()
    stale = older(cloud, instance.id, **ended("QEMU_EXITED"), incarnation=incarnation)
    await come_back_with(cloud, stale)
    async with asyncio.timeout(10):
        async for message in stream:
            event = message.event
            if event.type == "instance.updated":
                assert event.resource["status"]["state"] == "RUNNING"
            if event.type == "operation.finished":
                break
    stream.cancel()
    answer = await cloud.operations.ListOperations(operation_pb2.ListOperationsRequest(), timeout=10)
    assert "observe-again" in {operation.kind for operation in answer.operations}
    seen = await cloud.get()
    assert (state_of(seen), condition(seen).status) == ("RUNNING", pb.CONDITION_STATUS_TRUE)


async def test_what_the_runner_still_says_under_a_new_fence_is_the_truth(cloud: Cloud) -> None:
    instance = await cloud.launch()
    stale = older(cloud, instance.id, **ended("QEMU_EXITED"), incarnation=0)
    cloud.runner.machines[instance.id] = stale
    await come_back_with(cloud, stale)
    failed = await cloud.until(in_state("FAILED"))
    assert failed.status.reason == "QEMU_EXITED"


async def test_a_newer_view_is_taken(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.break_off()
    await cloud.until(is_unknown)
    cloud.runner.report(instance.id, run_state="paused")
    cloud.runner.away = False
    await cloud.until(in_state("PAUSED"))


async def test_a_machine_that_ended_while_the_runner_was_gone_is_known_to_have_ended(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.break_off()
    await cloud.until(is_unknown)
    cloud.runner.report(instance.id, **ended("QEMU_KILLED"))
    cloud.runner.away = False
    assert (await cloud.until(in_state("FAILED"))).status.reason == "QEMU_KILLED"


async def test_a_machine_that_the_runner_knows_no_more_is_lost(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.break_off()
    await cloud.until(is_unknown)
    cloud.runner.machines.pop(instance.id)
    cloud.runner.away = False
    assert (await cloud.until(in_state("FAILED"))).status.reason == "MACHINE_LOST"


async def test_a_guest_that_reboots_runs_on_and_is_counted(cloud: Cloud) -> None:
    instance = await cloud.launch()
    long_ago = datetime.now(UTC) - timedelta(days=1)
    cloud.runner.report(instance.id, agent_connected=True, start_time=long_ago, boot_time=long_ago)
    await cloud.until(lambda found: condition(found, "Ready").status == pb.CONDITION_STATUS_TRUE)
    cloud.runner.report(instance.id, agent_connected=False, boots=2, boot_time=datetime.now(UTC))
    booting = await cloud.until(lambda found: found.status.boots == 2)
    assert state_of(booting) == "RUNNING"
    ready = condition(booting, "Ready")
    assert (ready.status, ready.reason) == (pb.CONDITION_STATUS_FALSE, "ProbesMissing"), "it has time again"
    cloud.runner.report(instance.id, agent_connected=True)
    await cloud.until(lambda found: condition(found, "Ready").status == pb.CONDITION_STATUS_TRUE)


async def test_a_guest_held_for_its_disk_is_paused_with_the_reason_and_resumes(cloud: Cloud) -> None:
    instance = await cloud.launch()
    cloud.runner.report(instance.id, run_state="io-error", io_error="The disk could not be written: full.")
    held = await cloud.until(in_state("PAUSED"))
    assert held.status.reason == "IO_ERROR"
    assert held.status.message.startswith("The disk could not be written: full.")
    assert condition(held).reason == "IO_ERROR"
    assert held.desired_power == pb.DESIRED_POWER_RUNNING
    resumed = await cloud.verb("Resume")
    assert (state_of(resumed), resumed.status.reason) == ("RUNNING", "")


@pytest.mark.parametrize(
    ("reason", "power"),
    [("GUEST_SHUTDOWN", pb.DESIRED_POWER_STOPPED), ("HOST_SHUTDOWN", pb.DESIRED_POWER_RUNNING)],
)
async def test_an_orderly_end_is_no_failure(cloud: Cloud, reason: str, power: int) -> None:
    instance = await cloud.launch()
    cloud.runner.report(
        instance.id, phase=MachinePhase.EXITED, run_state="", exit=MachineExit(reason, "in order")
    )
    stopped = await cloud.until(in_state("STOPPED"))
    assert (stopped.status.reason, stopped.status.message) == (reason, "in order")
    assert stopped.desired_power == power
