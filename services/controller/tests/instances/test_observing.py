"""Observations, events, waits, updates, secrets."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller.database import DatabaseUnavailable
from controller.domain.cloud_init import CloudInit, CloudInitStage, CloudInitStatus
from controller.domain.machine import Guest
from controller.instances.observations import Observations
from controller.ports import ImageEvent
from controller.records import instance_rows
from controller.records.documents import instance_document
from controller.records.schema import instances
from controller_fakes import Cloud, FakeRunner, FakeStore, ended, reason_of, running_cloud
from google.protobuf import json_format
from qcontroller.controller.v1 import host_pb2, operation_pb2
from qcontroller.controller.v1 import instance_pb2 as pb
from sqlalchemy import Connection, MetaData, select, update


def condition(instance: pb.Instance, kind: str) -> pb.Condition:
    return next(found for found in instance.status.conditions if found.type == kind)


async def wait(cloud: Cloud, timeout: str = "10s", kind: str = "") -> pb.Instance:
    request = pb.WaitInstanceRequest(name="web-1", condition=kind, timeout=timeout)
    instance: pb.Instance = (await cloud.instances.WaitInstance(request, timeout=15)).instance
    return instance


async def test_a_wait_is_answered_when_the_agent_does(cloud: Cloud) -> None:
    instance = await cloud.launch()
    waiting = asyncio.ensure_future(wait(cloud))
    cloud.runner.report(instance.id, agent_connected=True, guest=Guest("web-1"))
    ready = await waiting
    assert condition(ready, "Ready").status == pb.CONDITION_STATUS_TRUE
    assert ready.status.guest.hostname == "web-1"


async def test_what_cloud_init_tells_is_in_the_instance_and_stays_with_it(cloud: Cloud) -> None:
    instance = await cloud.launch()
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    stage = CloudInitStage("modules-final", begun, None, ("('runcmd', 1)",), ("WARNING: w",))
    told = CloudInitStatus(
        "error", "NoCloud", (stage,), ("('runcmd', 1)",), ("runcmd",), ("WARNING: w",), ("ntp: x",)
    )
    cloud.runner.report(instance.id, cloud_init=CloudInit.ERROR, cloud_init_status=told)
    found = await cloud.until(lambda one: one.status.HasField("cloud_init"))
    status = found.status.cloud_init
    assert (status.state, status.datasource, list(status.failed_modules)) == ("error", "NoCloud", ["runcmd"])
    assert (list(status.warnings), list(status.schema_errors)) == (["WARNING: w"], ["ntp: x"])
    assert status.stages[0].start_time.ToDatetime(UTC) == begun
    assert not status.stages[0].HasField("finish_time")
    kept = await cloud.database.read(lambda conn: instance_rows.find(conn, instance.id))
    assert kept is not None
    assert kept.machine is not None
    assert kept.machine.cloud_init_status == told
    document = instance_document(kept)["status"]["cloudInit"]
    assert (document["failedModules"], document["stages"][0]["startTime"]) == (
        ["runcmd"],
        "2026-01-01T00:00:00Z",
    )


async def test_a_wait_that_runs_out_shows_the_console(cloud: Cloud) -> None:
    await cloud.launch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wait(cloud, timeout="1ms")
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    reason, metadata = reason_of(caught.value)
    assert reason == "READINESS_TIMEOUT"
    assert metadata["condition"] == "Ready"
    assert metadata["console"] == "login: "


async def test_a_wait_that_cannot_come_true_is_refused_at_once(cloud: Cloud) -> None:
    await cloud.launch(start=False)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wait(cloud)
    assert reason_of(caught.value)[0] == "INSTANCE_STATE_CONFLICT"


async def test_a_waiter_is_told_when_the_machine_is_lost(cloud: Cloud) -> None:
    instance = await cloud.launch()
    waiting = asyncio.ensure_future(wait(cloud))
    cloud.runner.report(instance.id, **ended("QEMU_EXITED"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await waiting
    assert reason_of(caught.value)[1]["state"] == "FAILED"


async def test_a_runner_that_is_away_leaves_the_state_and_makes_conditions_unknown(cloud: Cloud) -> None:
    await cloud.launch()
    cloud.runner.break_off()
    unknown = await cloud.until(
        lambda found: condition(found, "MachineRunning").status == pb.CONDITION_STATUS_UNKNOWN
    )
    assert unknown.status.state == pb.INSTANCE_STATE_RUNNING
    cloud.runner.away = False
    await cloud.until(lambda found: condition(found, "MachineRunning").status == pb.CONDITION_STATUS_TRUE)


async def test_readiness_is_given_up_though_the_database_was_away_at_that_moment(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [DatabaseUnavailable("away")]
    derive = Observations.derive

    async def failing(self: Observations, instance_ids: Sequence[str]) -> None:
        if faults:
            raise faults.pop()
        await derive(self, instance_ids)

    monkeypatch.setattr(Observations, "derive", failing)
    instance = await cloud.launch()
    # The node runs at half speed: the default 180 s are 360, of which a moment is left.
    cloud.runner.report(instance.id, boot_time=datetime.now(UTC) - timedelta(seconds=359.7))
    given_up = await cloud.until(lambda found: condition(found, "Ready").reason == "READINESS_TIMEOUT")
    assert condition(given_up, "Ready").status == pb.CONDITION_STATUS_FALSE
    assert faults == []


async def test_events_tell_a_launch_from_created_to_deleted_and_can_be_replayed(cloud: Cloud) -> None:
    stream = cloud.events.WatchEvents(host_pb2.WatchEventsRequest())
    await stream.initial_metadata()
    await cloud.launch()
    await cloud.done(await cloud.ask("Delete", force=True))
    seen = await until_deleted(stream)
    assert seen[0].type == "instance.created"
    assert "operation.created" in {event.type for event in seen}
    states = [
        json_format.MessageToDict(event.resource)["status"]["state"]
        for event in seen
        if event.type == "instance.updated"
    ]
    assert next(state for state in states if state in {"STARTING", "RUNNING", "DELETING"}) == "STARTING"
    assert "RUNNING" in states
    replay = cloud.events.WatchEvents(host_pb2.WatchEventsRequest(cursor=seen[0].cursor))
    assert [event.cursor for event in await until_deleted(replay)] == [event.cursor for event in seen[1:]]


async def until_deleted(stream: Any) -> list[Any]:
    collected = []
    async with asyncio.timeout(10):
        async for message in stream:
            if message.event.instance == "web-1":
                collected.append(message.event)
                if message.event.type == "instance.deleted":
                    stream.cancel()
                    return collected
    raise AssertionError("the stream ended")


async def test_a_strange_cursor_is_refused(cloud: Cloud) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(cloud.events.WatchEvents(host_pb2.WatchEventsRequest(cursor="no-cursor")).__aiter__())
    assert reason_of(caught.value)[0] == "CURSOR_INVALID"


async def test_the_stores_events_come_into_the_log_and_its_cursor_lasts(tmp_path: Path) -> None:
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store) as cloud:
        stream = cloud.events.WatchEvents(host_pb2.WatchEventsRequest())
        await stream.initial_metadata()
        await store.events.put(ImageEvent("c7", datetime.now(UTC), "image.created", {"name": "tiny"}))
        async with asyncio.timeout(10):
            async for message in stream:
                if message.event.type == "image.created":
                    break
        stream.cancel()
    runner.watchers.clear()
    store.events = asyncio.Queue()
    async with running_cloud(tmp_path, runner, store) as cloud:
        await cloud.launch(start=False)
    assert store.cursors[-1] == "c7"


async def test_a_restarted_controller_finds_what_ended_meanwhile(tmp_path: Path) -> None:
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store) as cloud:
        instance = await cloud.launch()
    runner.report(instance.id, **ended("QEMU_EXITED"))
    async with running_cloud(tmp_path, runner, store) as cloud:
        await cloud.until(lambda found: found.status.state == pb.INSTANCE_STATE_FAILED)


async def test_labels_change_always_and_resources_only_when_stopped(cloud: Cloud) -> None:
    await cloud.launch(labels={"a": "1", "b": "2"})
    changed = await cloud.verb("Update", labels={"a": "3", "c": "4"}, removed_labels=["b"])
    assert dict(changed.labels) == {"a": "3", "c": "4"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.ask("Update", cpus=2)
    assert reason_of(caught.value)[0] == "INSTANCE_STATE_CONFLICT"
    await cloud.verb("Stop")
    changed = await cloud.verb("Update", cpus=2, memory="384", disk="256M")
    assert (changed.vm.cpus, changed.vm.memory, changed.vm.disk) == (2, 384, 256)
    assert cloud.runner.specs[changed.id].disk_bytes == 256 << 20
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.ask("Update", disk="128M")
    assert reason_of(caught.value)[0] == "FIELD_INVALID"


async def test_lists_filter_by_label_and_state_and_page_by_name(cloud: Cloud) -> None:
    for name in ("c", "a", "b"):
        await cloud.launch(name, start=name == "b", labels={"team": "x" if name != "c" else "y"})

    async def names(**fields: Any) -> tuple[list[str], str]:
        answer = await cloud.instances.ListInstances(pb.ListInstancesRequest(**fields), timeout=10)
        return [instance.name for instance in answer.instances], answer.next_page_token

    assert await names(labels=["team=x"]) == (["a", "b"], "")
    assert await names(states=[pb.INSTANCE_STATE_RUNNING]) == (["b"], "")
    first, token = await names(page_size=2)
    assert first == ["a", "b"]
    assert await names(page_size=2, page_token=token) == (["c"], "")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await names(page_token=token, labels=["team=x"])
    assert reason_of(caught.value)[0] == "PAGE_TOKEN_INVALID"


async def test_a_page_ends_early_where_guests_told_so_much_that_no_client_would_take_it(cloud: Cloud) -> None:
    for name in "abcd":
        await cloud.launch(name, start=False)
    told = update(instances).values(message="x" * 1_500_000)
    await cloud.database.write(lambda conn: conn.execute(told))
    seen: list[list[str]] = []
    token = ""
    while not seen or token:
        request = pb.ListInstancesRequest(page_token=token)
        answer = await cloud.instances.ListInstances(request, timeout=10)
        seen.append([instance.name for instance in answer.instances])
        token = answer.next_page_token
    assert seen == [["a"], ["b"], ["c"], ["d"]]


async def test_secrets_are_in_their_table_and_nowhere_else(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    marker = "correct-horse-battery-staple"
    instance = await cloud.launch(cloud_init=pb.CloudInit(userdata=f"#cloud-config\n# {marker}"))
    await cloud.verb("Stop")
    assert marker.encode() in cloud.runner.specs[instance.id].user_data
    assert marker not in str(await cloud.get())
    assert marker not in caplog.text
    assert await cloud.database.read(lambda conn: holding(conn, marker)) == {"instance_secrets"}
    await cloud.done(await cloud.ask("Delete"))
    assert await cloud.database.read(lambda conn: holding(conn, marker)) == set()


def holding(conn: Connection, text: str) -> set[str]:
    """Return the names of the tables in which `text` stands somewhere."""
    tables = MetaData()
    tables.reflect(conn)
    return {table.name for table in tables.sorted_tables if text in str(conn.execute(select(table)).all())}


async def test_a_program_runs_only_where_an_agent_answers(cloud: Cloud) -> None:
    instance = await cloud.launch()
    request = pb.ExecInstanceRequest(name="web-1", argv=["/bin/true"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.ExecInstance(request, timeout=10)
    assert reason_of(caught.value)[0] == "GUEST_AGENT_UNAVAILABLE"
    cloud.runner.report(instance.id, agent_connected=True)
    await wait(cloud, kind="AgentConnected")
    assert (await cloud.instances.ExecInstance(request, timeout=10)).stdout == b"out\n"
    await cloud.verb("Pause")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.ExecInstance(request, timeout=10)
    assert reason_of(caught.value)[0] == "INSTANCE_STATE_CONFLICT"


async def test_nodes_and_readiness_tell_who_is_away(cloud: Cloud) -> None:
    node = (await cloud.nodes.GetNode(host_pb2.GetNodeRequest(name="node-1"), timeout=10)).node
    assert node.state == host_pb2.NODE_STATE_READY
    cloud.runner.break_off()
    node = (await cloud.nodes.GetNode(host_pb2.GetNodeRequest(name="node-1"), timeout=10)).node
    assert (node.state, node.qemu_version) == (host_pb2.NODE_STATE_UNREACHABLE, "7.2.22")
    answer = await cloud.nodes.GetReadiness(host_pb2.GetReadinessRequest(), timeout=10)
    assert {found.name: found.up for found in answer.dependencies} == {
        "database": True,
        "image-store": True,
        "runner:node-1": False,
        "vm-host": False,
    }
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.nodes.GetNode(host_pb2.GetNodeRequest(name="none"), timeout=10)
    assert reason_of(caught.value)[0] == "NODE_NOT_FOUND"


async def test_a_cancelled_delete_is_refused_past_its_point_of_no_return(cloud: Cloud) -> None:
    await cloud.launch()
    reached = cloud.runner.at("delete")
    deleting = await cloud.ask("Delete", force=True)
    await asyncio.wait_for(reached.wait(), 10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.operations.CancelOperation(
            operation_pb2.CancelOperationRequest(id=deleting.operation.id), timeout=10
        )
    assert reason_of(caught.value)[0] == "OPERATION_NOT_CANCELLABLE"
    cloud.runner.gates.pop("delete").set()
    await cloud.done(deleting)
