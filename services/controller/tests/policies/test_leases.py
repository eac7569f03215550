"""Leases: renewed by heartbeats and streams, lost without them, and what follows."""

import asyncio
from datetime import UTC, timedelta
from pathlib import Path

import grpc
import pytest
from controller_fakes import Cloud, FakeRunner, FakeStore, SteppedClock, pointers_of, reason_of, running_cloud
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1.instance_pb2_grpc import InstanceServiceStub

RUNNING, STOPPED = pb.INSTANCE_STATE_RUNNING, pb.INSTANCE_STATE_STOPPED
PURGE_AFTER_S = 600.0
# A third of the leases of 30 s that streams hold here.
HELD_EVERY_S = 10.0


async def lost(cloud: Cloud) -> pb.Instance:
    return await cloud.until(lambda found: found.status.state == STOPPED)


async def refused_renewal(cloud: Cloud) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.renew()
    return reason_of(caught.value)[0]


async def test_a_lease_that_nobody_renews_stops_the_instance_and_later_deletes_it(
    cloud: Cloud, clock: SteppedClock
) -> None:
    launched = await cloud.launch(lease="60s")
    assert launched.lease == "60s"
    clock.advance(61)
    stopped = await lost(cloud)
    assert stopped.status.reason == "LEASE_LOST"
    assert stopped.status.HasField("lease_lost_time")
    assert cloud.runner.calls.count("stop") == 1
    assert await refused_renewal(cloud) == "LEASE_LOST"
    clock.advance(PURGE_AFTER_S)
    await cloud.gone()
    assert cloud.runner.machines == {}


async def test_heartbeats_keep_it_and_write_no_event(cloud: Cloud, clock: SteppedClock) -> None:
    before = await cloud.launch(lease="60s")
    for _ in range(4):
        clock.advance(50)
        renewed = await cloud.renew()
        assert renewed.expire_time.ToDatetime(UTC) > clock.now() + timedelta(seconds=50)
    after = await cloud.get()
    assert after.etag == before.etag
    assert after.status.state == RUNNING
    assert after.status.lease_expire_time == renewed.expire_time


async def test_an_open_stream_keeps_it_and_a_dropped_one_does_not(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(lease="30s")
    stream = cloud.instances.HoldLease(pb.HoldLeaseRequest(name="web-1"))
    async with asyncio.timeout(20):
        await stream.read()
        for _ in range(5):
            await clock.until_asleep(HELD_EVERY_S)
            clock.advance(HELD_EVERY_S)
            await stream.read()
        assert (await cloud.get()).status.state == RUNNING
        await clock.until_asleep(HELD_EVERY_S)
        stream.cancel()
        await clock.until_asleep(HELD_EVERY_S, asleep=False)
    clock.advance(31)
    assert (await lost(cloud)).status.reason == "LEASE_LOST"


async def test_a_stream_ends_with_its_instance(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(lease="30s")
    stream = cloud.instances.HoldLease(pb.HoldLeaseRequest(name="web-1"))
    async with asyncio.timeout(20):
        await stream.read()
        await cloud.done(await cloud.ask("Delete", force=True))
        await clock.until_asleep(HELD_EVERY_S)
        clock.advance(HELD_EVERY_S)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert reason_of(caught.value)[0] == "INSTANCE_NOT_FOUND"


async def test_a_controller_that_stops_ends_the_stream_in_order(tmp_path: Path, clock: SteppedClock) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/c.sock") as channel:
        async with running_cloud(tmp_path, clock=clock) as cloud:
            await cloud.launch(lease="30s")
            stream = InstanceServiceStub(channel).HoldLease(pb.HoldLeaseRequest(name="web-1"))
            await stream.read()
            await clock.until_asleep(HELD_EVERY_S)
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_clock_that_is_set_does_not_end_a_lease(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(lease="60s")
    clock.set_wall(3600)
    clock.advance(30)
    assert (await cloud.renew()).lease == "60s"
    clock.set_wall(-7200)
    clock.advance(61)
    await lost(cloud)


async def test_a_lease_does_not_run_out_because_the_controller_was_down(
    tmp_path: Path, clock: SteppedClock
) -> None:
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store, clock) as cloud:
        await cloud.launch(lease="60s")
    clock.advance(3600)
    async with running_cloud(tmp_path, runner, store, clock) as cloud:
        # It has its whole length from the start on, and is shown so.
        shown = await cloud.verb("Update", labels={"a": "b"})
        assert shown.status.state == RUNNING
        assert shown.status.lease_expire_time.ToDatetime(UTC) > clock.now()
        clock.advance(61)
        await lost(cloud)


@pytest.mark.parametrize("call", ["stop", "delete"])
async def test_a_controller_that_ends_in_the_middle_goes_on(
    tmp_path: Path, clock: SteppedClock, call: str
) -> None:
    runner, store = FakeRunner(), FakeStore()
    reached = runner.at(call)
    async with running_cloud(tmp_path, runner, store, clock) as cloud:
        await cloud.launch(lease="60s")
        clock.advance(61)
        if call == "delete":
            await lost(cloud)
            clock.advance(PURGE_AFTER_S)
        await asyncio.wait_for(reached.wait(), 10)
    runner.gates.clear()
    async with running_cloud(tmp_path, runner, store, clock) as cloud:
        clock.advance(PURGE_AFTER_S)
        await cloud.gone()


async def test_a_protected_one_is_only_stopped(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(lease="60s", protected=True)
    clock.advance(61)
    assert "protected" in (await lost(cloud)).status.message
    clock.advance(PURGE_AFTER_S)
    kept = await cloud.verb("Update", labels={"a": "b"})
    assert kept.status.state == STOPPED
    await cloud.ask("Update", protected=False)
    await cloud.gone()


async def test_a_lost_lease_begins_anew_by_a_start_or_a_patch(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(lease="60s")
    clock.advance(61)
    await lost(cloud)
    started = await cloud.verb("Start")
    assert not started.status.HasField("lease_lost_time")
    clock.advance(61)
    await lost(cloud)
    patched = await cloud.verb("Update", lease="60s")
    assert not patched.status.HasField("lease_lost_time")
    await cloud.renew()


async def test_a_lease_can_be_taken_away(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(lease="60s")
    assert (await cloud.verb("Update", lease="")).lease == ""
    assert await refused_renewal(cloud) == "INSTANCE_WITHOUT_LEASE"
    clock.advance(3600)
    assert (await cloud.verb("Pause")).status.state == pb.INSTANCE_STATE_PAUSED


async def test_a_lost_lease_ends_restarting(cloud: Cloud, clock: SteppedClock) -> None:
    await cloud.launch(lease="60s", start=False, restart_policy="always")
    clock.advance(61)
    await cloud.until(lambda found: found.status.HasField("lease_lost_time"))
    clock.advance(PURGE_AFTER_S)
    await cloud.gone()
    assert "start" not in cloud.runner.calls


@pytest.mark.parametrize("lease", ["0s", "999ms", "25h", "soon"])
async def test_a_lease_of_no_sensible_length_is_refused(cloud: Cloud, lease: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.launch(lease=lease)
    assert pointers_of(caught.value) == {"/lease"}
    await cloud.launch(start=False)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.ask("Update", lease=lease)
    assert pointers_of(caught.value) == {"/lease"}


async def test_there_is_no_lease_of_what_is_not_there(cloud: Cloud) -> None:
    assert await refused_renewal(cloud) == "INSTANCE_NOT_FOUND"
