"""What a node holds is promised once: in the transaction that takes it, and never to two."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller.domain.capacity import Overcommit, overhead_mib
from controller.domain.machine import MachinePlan, MachineSpec
from controller.domain.shortage import Resource
from controller_fakes import NODE, Cloud, FakeRunner, ended, reason_of, running_cloud
from qcontroller.controller.v1 import host_pb2, operation_pb2
from qcontroller.controller.v1 import instance_pb2 as pb

SMALL = pb.VmSpec(cpus=1, memory="256M")
EACH_MIB = 256 + overhead_mib(1, 256, emulated=True)

Room = Callable[..., AbstractAsyncContextManager[Cloud]]


@dataclass
class TogetherRunner(FakeRunner):
    """A runner whose plans return when `parties` of them have come: all have looked, none has taken."""

    parties: int = 0
    arrived: int = 0

    def __post_init__(self) -> None:
        self.all_there = asyncio.Event()

    async def plan(
        self, machine_id: str, spec: MachineSpec, *, network_only: bool = False, reserve: bool = False
    ) -> MachinePlan:
        self.arrived += 1
        if self.arrived >= self.parties:
            self.all_there.set()
        await self.all_there.wait()
        return await super().plan(machine_id, spec, network_only=network_only, reserve=reserve)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """Return a cloud whose node can hold exactly so much memory, CPUs or disk."""

    @asynccontextmanager
    async def run(
        memory_mib: int = 1 << 20, cpus: int = 64, disk_mib: int = 1 << 20, *, together: int = 0
    ) -> AsyncIterator[Cloud]:
        form = replace(NODE, memory_total_mib=memory_mib, cpus_total=cpus, disk_total_mib=disk_mib)
        runner = TogetherRunner(form=form, parties=together) if together else FakeRunner(form=form)
        exactly = Overcommit(cpus=1.0, memory=1.0, disk=1.0, reserve_mib=0)
        async with running_cloud(tmp_path, runner, overcommit=exactly) as cloud:
            yield cloud

    return run


async def refused(work: Any) -> tuple[str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await work
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return reason_of(caught.value)


async def node(cloud: Cloud) -> host_pb2.Node:
    found: host_pb2.Node = (await cloud.nodes.GetNode(host_pb2.GetNodeRequest(name="node-1"))).node
    return found


async def test_the_last_mib_goes_to_one_of_twenty_that_have_all_seen_it_free(room: Room) -> None:
    async with room(EACH_MIB, together=20) as cloud:

        async def launch(number: int) -> str:
            request = pb.LaunchInstanceRequest(name=f"vm-{number}", image="tiny", start=True, vm=SMALL)
            try:
                await cloud.instances.LaunchInstance(request, timeout=30)
            except grpc.aio.AioRpcError as exc:
                return reason_of(exc)[0]
            return "taken"

        answers = await asyncio.gather(*(launch(number) for number in range(20)))
        assert sorted(answers) == ["HOST_CAPACITY_EXHAUSTED"] * 19 + ["taken"]
        listed = await cloud.instances.ListInstances(pb.ListInstancesRequest(), timeout=10)
        assert len(listed.instances) == 1


async def test_the_last_mib_goes_to_one_of_two_starts(room: Room) -> None:
    async with room(EACH_MIB) as cloud:
        for name in ("a", "b"):
            await cloud.launch(name, start=False, vm=SMALL)

        async def start(name: str) -> str:
            try:
                await cloud.ask("Start", name)
            except grpc.aio.AioRpcError as exc:
                return reason_of(exc)[0]
            return "taken"

        assert sorted(await asyncio.gather(start("a"), start("b"))) == ["HOST_CAPACITY_EXHAUSTED", "taken"]


async def test_a_refusal_tells_what_was_asked_what_is_free_and_who_holds_it(room: Room) -> None:
    async with room(EACH_MIB + 100) as cloud:
        await cloud.launch("holder", vm=SMALL)
        request = pb.LaunchInstanceRequest(name="late", image="tiny", start=True, vm=SMALL)
        reason, metadata = await refused(cloud.instances.LaunchInstance(request, timeout=10))
    assert reason == "HOST_CAPACITY_EXHAUSTED"
    assert metadata == {
        "node": "node-1",
        "resource": "memory",
        "memoryAsked": str(EACH_MIB),
        "memoryFree": "100",
        "memoryLimit": str(EACH_MIB + 100),
        "memoryHolders": f"holder={EACH_MIB}",
    }


async def test_a_refused_launch_leaves_neither_instance_nor_operation(room: Room) -> None:
    async with room(EACH_MIB - 1) as cloud:
        request = pb.LaunchInstanceRequest(name="vm", image="tiny", start=True, vm=SMALL)
        await refused(cloud.instances.LaunchInstance(request, timeout=10))
        listed = await cloud.operations.ListOperations(operation_pb2.ListOperationsRequest(), timeout=10)
        assert list(listed.operations) == []
        assert (await node(cloud)).memory.allocated == 0


async def test_what_would_be_refused_is_refused_when_only_validated(room: Room) -> None:
    async with room(EACH_MIB - 1) as cloud:
        request = pb.LaunchInstanceRequest(name="vm", image="tiny", start=True, vm=SMALL, validate_only=True)
        reason, metadata = await refused(cloud.instances.LaunchInstance(request, timeout=10))
        assert (reason, metadata["resource"]) == ("HOST_CAPACITY_EXHAUSTED", "memory")


async def test_an_instance_that_is_off_holds_its_disk_alone(room: Room) -> None:
    async with room(EACH_MIB) as cloud:
        await cloud.launch("off", start=False, vm=SMALL)
        seen = await node(cloud)
        assert (seen.memory.allocated, seen.cpus.allocated, seen.disk.allocated) == (0, 0, 64)
        await cloud.launch("on", vm=SMALL)
        assert (await node(cloud)).memory.allocated == EACH_MIB


async def test_a_stop_and_a_delete_give_back_what_was_held(room: Room) -> None:
    async with room(EACH_MIB) as cloud:
        await cloud.launch("one", vm=SMALL)
        await cloud.verb("Stop", "one")
        await cloud.launch("two", vm=SMALL)
        await cloud.done(await cloud.ask("Delete", "two", force=True))
        await cloud.verb("Start", "one")
        seen = await node(cloud)
        assert (seen.memory.allocated, seen.memory.limit, seen.disk.allocated) == (EACH_MIB, EACH_MIB, 64)


async def test_one_that_crashed_still_holds_what_its_restart_will_need(room: Room) -> None:
    async with room(EACH_MIB) as cloud:
        crashed = await cloud.launch("crashed", vm=SMALL)
        cloud.runner.report(crashed.id, **ended("QEMU_EXITED"))
        await cloud.until(lambda instance: instance.status.state == pb.INSTANCE_STATE_FAILED, "crashed")
        request = pb.LaunchInstanceRequest(name="other", image="tiny", start=True, vm=SMALL)
        await refused(cloud.instances.LaunchInstance(request, timeout=10))
        await cloud.verb("Start", "crashed")


async def test_cpus_are_shared_by_ratio_but_one_guest_gets_no_more_than_there_are(tmp_path: Path) -> None:
    runner = FakeRunner(form=replace(NODE, cpus_total=2))
    async with running_cloud(tmp_path, runner, overcommit=Overcommit(cpus=1.5)) as cloud:
        await cloud.launch("one", vm=pb.VmSpec(cpus=2, memory="64M"))
        request = pb.LaunchInstanceRequest(name="two", image="tiny", start=True, vm=pb.VmSpec(cpus=2))
        _, metadata = await refused(cloud.instances.LaunchInstance(request, timeout=10))
        assert (metadata["cpusFree"], metadata["cpusHolders"]) == ("1", "one=2")
        request = pb.LaunchInstanceRequest(name="two", image="tiny", start=True, vm=pb.VmSpec(cpus=3))
        _, metadata = await refused(cloud.instances.LaunchInstance(request, timeout=10))
        assert (metadata["cpusAsked"], metadata["cpusLimit"]) == ("3", "2")


async def test_a_disk_grows_only_into_what_is_left(room: Room) -> None:
    async with room(disk_mib=200) as cloud:
        await cloud.launch("one", start=False)
        await cloud.launch("two", start=False)
        _, metadata = await refused(cloud.ask("Update", "one", disk="137M"))
        assert (metadata["diskAsked"], metadata["diskFree"]) == ("137", "136")
        await cloud.verb("Update", "one", disk="136M")
        assert (await node(cloud)).disk.allocated == 200


async def test_memory_that_is_off_may_be_more_than_is_left_until_it_starts(room: Room) -> None:
    async with room(2 * EACH_MIB) as cloud:
        await cloud.launch("holder", vm=SMALL)
        await cloud.launch("large", start=False, vm=SMALL)
        await cloud.verb("Update", "large", memory="4G")
        _, metadata = await refused(cloud.ask("Start", "large"))
        assert metadata["memoryHolders"] == f"holder={EACH_MIB}"


async def test_what_is_held_already_is_not_judged_again(room: Room, tmp_path: Path) -> None:
    async with room(EACH_MIB) as cloud:
        await cloud.launch("one", vm=SMALL)
        kept = cloud.runner
    smaller = Overcommit(reserve_mib=EACH_MIB)
    async with running_cloud(tmp_path, kept, overcommit=smaller) as cloud:
        await cloud.verb("Restart", "one")


def test_less_reserve_and_more_ratio_make_a_higher_limit() -> None:
    form = replace(NODE, memory_total_mib=20_000, cpus_total=2, disk_total_mib=1000)
    limits = {"cpus": 32, "memory": 19_000, "disk": 4000}
    assert {resource.value: limit for resource, limit in Overcommit().limits(form).items()} == limits
    assert Overcommit(memory=1.5, reserve_mib=10_000).limits(form)[Resource.MEMORY] == 15_000


def test_a_small_host_keeps_half_a_gibibyte_for_itself() -> None:
    assert Overcommit().limits(replace(NODE, memory_total_mib=2048))[Resource.MEMORY] == 1536


def test_emulation_needs_more_and_never_more_than_its_cache() -> None:
    assert overhead_mib(1, 256, emulated=False) == 114
    assert overhead_mib(1, 256, emulated=True) == 114 + 128
    assert overhead_mib(1, 65_536, emulated=True) - overhead_mib(1, 65_536, emulated=False) == 1024


async def test_more_room_than_the_contract_can_count_is_told_as_the_most(tmp_path: Path) -> None:
    runner = FakeRunner(form=replace(NODE, disk_total_mib=2**31, disk_free_mib=2**31))
    async with running_cloud(tmp_path, runner) as cloud:
        told = (await node(cloud)).disk
        assert (told.total, told.free, told.limit) == (2**31, 2**31, 2**32 - 1)
