"""Machines that no instance stands for: quarantined, listed, taken back as they are, or removed."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller.domain.machine import MachinePhase
from controller_fakes import Cloud, FakeRunner, FakeStore, ended, pointers_of, reason_of, running_cloud
from qcontroller.controller.v1 import host_pb2, instance_pb2, operation_pb2

UNKNOWN = "7d0c0c0c-0000-4000-8000-000000000000"


async def orphans(cloud: Cloud) -> list[host_pb2.Orphan]:
    answer = await cloud.nodes.ListOrphans(host_pb2.ListOrphansRequest(node="node-1"), timeout=10)
    return list(answer.orphans)


async def ask(cloud: Cloud, machine_id: str, name: str = "", **options: str) -> instance_pb2.Mutation:
    request = instance_pb2.ImportInstanceRequest(
        node="node-1", id=machine_id, name=name, options=instance_pb2.MutationOptions(**options)
    )
    mutation: instance_pb2.Mutation = (await cloud.instances.ImportInstance(request, timeout=10)).mutation
    return mutation


async def discard(cloud: Cloud, machine_id: str, *, force: bool = False) -> instance_pb2.Mutation:
    request = host_pb2.DeleteOrphanRequest(node="node-1", id=machine_id, force=force)
    mutation: instance_pb2.Mutation = (await cloud.nodes.DeleteOrphan(request, timeout=10)).mutation
    return mutation


async def refused(call: Any) -> tuple[str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason_of(error.value)


class Disaster:
    """A runner and a store whose controller has lost its database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runner = FakeRunner()
        self.store = FakeStore()
        self.number = 0

    def controller(self, directory: str = "") -> Any:
        """Run a controller in `directory`; without one its database is new."""
        self.number += 1
        path = self.path / (directory or f"lost-{self.number}")
        path.mkdir(exist_ok=True)
        return running_cloud(path, self.runner, self.store)


@pytest.fixture
def disaster(tmp_path: Path) -> Disaster:
    return Disaster(tmp_path)


async def test_a_known_machine_is_no_orphan(cloud: Cloud) -> None:
    await cloud.launch()
    assert await orphans(cloud) == []


async def test_a_launch_in_flight_and_a_delete_in_flight_make_no_orphans(cloud: Cloud) -> None:
    await cloud.launch("web-1", start=False)
    prepared, deleting = cloud.runner.at("prepare"), cloud.runner.at("delete")
    launched = await cloud.instances.LaunchInstance(
        instance_pb2.LaunchInstanceRequest(name="web-2", image="tiny"), timeout=10
    )
    deleted = await cloud.ask("Delete", "web-1")
    await asyncio.gather(prepared.wait(), deleting.wait())
    assert await orphans(cloud) == []
    for gate in cloud.runner.gates.values():
        gate.set()
    await cloud.done(launched.mutation)
    await cloud.done(deleted)


async def test_a_lost_database_makes_orphans_that_run_on(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    async with disaster.controller() as cloud:
        (orphan,) = await orphans(cloud)
        assert (orphan.id, orphan.name, orphan.running) == (lost.id, "web-1", True)
        assert (orphan.reason, orphan.importable) == ("OTHER_DATABASE", True)
        assert orphan.size_bytes == 4096
        assert disaster.runner.machines[lost.id].running


async def test_an_import_brings_the_instance_back_as_it_was(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch(
            labels={"team": "web"}, ports=[instance_pb2.PortMapping(host=2222, guest=22)]
        )
    async with disaster.controller() as cloud:
        await cloud.done(await ask(cloud, lost.id))
        found = await cloud.get()
        assert found.status.state == instance_pb2.INSTANCE_STATE_RUNNING
        assert found.desired_power == instance_pb2.DESIRED_POWER_RUNNING
        for field in (
            "id",
            "name",
            "image",
            "image_digest",
            "vm",
            "labels",
            "arch",
            "readiness",
            "create_time",
        ):
            assert getattr(found, field) == getattr(lost, field), field
        assert list(found.status.nics) == list(lost.status.nics)
        assert await orphans(cloud) == []
        assert disaster.store.pins == {lost.id: lost.image_digest}


async def test_an_import_touches_neither_process_nor_files(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    disaster.runner.calls.clear()
    async with disaster.controller() as cloud:
        await cloud.done(await ask(cloud, lost.id))
    changing = {"prepare", "start", "stop", "pause", "resume", "reset", "delete"}
    assert changing.isdisjoint(disaster.runner.calls)


async def test_what_was_imported_can_be_stopped_started_and_deleted(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
        for _ in range(3):
            await cloud.verb("Stop")
            await cloud.verb("Start")
    assert disaster.runner.fences[lost.id] > 3
    async with disaster.controller() as cloud:
        await cloud.done(await ask(cloud, lost.id))
        assert (await cloud.verb("Stop")).status.state == instance_pb2.INSTANCE_STATE_STOPPED
        assert (await cloud.verb("Start")).status.state == instance_pb2.INSTANCE_STATE_RUNNING
        await cloud.done(await cloud.ask("Delete", force=True))
        assert disaster.runner.machines == {}
        assert disaster.store.pins == {}


async def test_what_its_seed_was_made_of_is_left_in_the_seed(disaster: Disaster) -> None:
    seed = instance_pb2.CloudInit(userdata="#cloud-config")
    async with disaster.controller() as cloud:
        lost = await cloud.launch(start=False, cloud_init=seed)
        assert not disaster.runner.specs[lost.id].keep_seed
    async with disaster.controller() as cloud:
        await cloud.done(await ask(cloud, lost.id))
        request = instance_pb2.UpdateInstanceRequest(name="web-1", cpus=2)
        await cloud.done((await cloud.instances.UpdateInstance(request, timeout=10)).mutation)
        assert disaster.runner.specs[lost.id].cpus == 2
        assert disaster.runner.specs[lost.id].keep_seed


@pytest.mark.parametrize(
    ("half", "other"), [("userdata", "/cloudInit/networkConfig"), ("network_config", "/cloudInit/userdata")]
)
async def test_half_a_seed_of_an_imported_instance_is_refused_since_the_other_half_would_be_lost(
    disaster: Disaster, half: str, other: str
) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch(start=False, cloud_init=instance_pb2.CloudInit(userdata="#cloud-config"))
    async with disaster.controller() as cloud:
        await cloud.done(await ask(cloud, lost.id))

        async def patched(**halves: Any) -> instance_pb2.Mutation:
            seed = instance_pb2.CloudInitPatch(**halves)
            request = instance_pb2.UpdateInstanceRequest(name="web-1", cloud_init=seed)
            answer = await cloud.instances.UpdateInstance(request, timeout=10)
            mutation: instance_pb2.Mutation = answer.mutation
            return mutation

        with pytest.raises(grpc.aio.AioRpcError, match="was imported") as error:
            await patched(**{half: "version: 2"})
        assert pointers_of(error.value) == {other}
        await cloud.done(await patched(userdata="new", network_config=""))
        # From then on both halves are known.
        await cloud.done(await patched(**{half: "{version: 2}"}))


async def test_policies_come_back_and_an_end_that_has_passed_does_not(disaster: Disaster) -> None:
    ended_long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    async with disaster.controller() as cloud:
        lost = await cloud.launch(restart_policy="always", autostart=True, protected=True)
    record = json.loads(disaster.runner.machines[lost.id].record)
    record["policies"]["expire_time"] = ended_long_ago.isoformat()
    disaster.runner.report(lost.id, record=json.dumps(record))
    async with disaster.controller() as cloud:
        await cloud.done(await ask(cloud, lost.id))
        found = await cloud.get()
        assert (found.restart_policy, found.autostart, found.protected) == ("always", True, True)
        assert not found.HasField("expire_time")


STANDS: list[tuple[dict[str, Any], int, int, str]] = [
    ({}, instance_pb2.INSTANCE_STATE_RUNNING, instance_pb2.DESIRED_POWER_RUNNING, ""),
    ({"run_state": "paused"}, instance_pb2.INSTANCE_STATE_PAUSED, instance_pb2.DESIRED_POWER_RUNNING, ""),
    (ended("STOPPED"), instance_pb2.INSTANCE_STATE_STOPPED, instance_pb2.DESIRED_POWER_STOPPED, "STOPPED"),
    (
        ended("VM_HOST_EXITED"),
        instance_pb2.INSTANCE_STATE_FAILED,
        instance_pb2.DESIRED_POWER_RUNNING,
        "VM_HOST_EXITED",
    ),
    (
        {"phase": MachinePhase.PREPARED, "run_state": ""},
        instance_pb2.INSTANCE_STATE_STOPPED,
        instance_pb2.DESIRED_POWER_STOPPED,
        "",
    ),
    (
        {"phase": MachinePhase.PREPARING, "run_state": ""},
        instance_pb2.INSTANCE_STATE_STOPPED,
        instance_pb2.DESIRED_POWER_STOPPED,
        "",
    ),
]


@pytest.mark.parametrize(("changes", "state", "power", "reason"), STANDS)
async def test_the_instance_is_as_its_machine_is_found(
    disaster: Disaster, changes: dict[str, Any], state: int, power: int, reason: str
) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    disaster.runner.report(lost.id, **changes)
    async with disaster.controller() as cloud:
        await cloud.done(await ask(cloud, lost.id))
        found = await cloud.get()
        assert (found.status.state, found.desired_power) == (state, power)
        assert found.status.reason in {reason, ""}


async def test_an_image_that_is_gone_is_told_and_hinders_nothing(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    disaster.store.gone = True
    disaster.store.pins.clear()
    async with disaster.controller() as cloud:
        await cloud.done(await ask(cloud, lost.id))
        found = await cloud.get()
        assert found.status.state == instance_pb2.INSTANCE_STATE_RUNNING
        assert found.status.reason == "IMAGE_GONE"
        assert (await cloud.verb("Stop")).status.state == instance_pb2.INSTANCE_STATE_STOPPED
        assert (await cloud.verb("Start")).status.reason == ""


async def test_another_name_can_be_given(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    async with disaster.controller() as cloud:
        await cloud.launch("web-1", start=False)
        reason, metadata = await refused(ask(cloud, lost.id))
        assert (reason, metadata["instance"]) == ("INSTANCE_ALREADY_EXISTS", "web-1")
        await cloud.done(await ask(cloud, lost.id, "web-2"))
        assert (await cloud.get("web-2")).id == lost.id


async def test_a_name_that_is_taken_is_refused_with_what_to_do(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    async with disaster.controller() as cloud:
        await cloud.launch("web-1", start=False)
        with pytest.raises(grpc.aio.AioRpcError, match="Give another `name`"):
            await ask(cloud, lost.id)


async def test_a_name_that_is_none_is_a_fault(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    async with disaster.controller() as cloud:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(cloud, lost.id, "../etc")
        assert pointers_of(error.value) == {"/name"}


async def test_an_unknown_orphan_is_not_found(cloud: Cloud) -> None:
    assert (await refused(ask(cloud, UNKNOWN)))[0] == "ORPHAN_NOT_FOUND"
    assert (await refused(discard(cloud, UNKNOWN)))[0] == "ORPHAN_NOT_FOUND"


async def test_an_unknown_node_is_not_found(cloud: Cloud) -> None:
    request = instance_pb2.ImportInstanceRequest(node="node-9", id=UNKNOWN)
    assert (await refused(cloud.instances.ImportInstance(request, timeout=10)))[0] == "NODE_NOT_FOUND"
    listing = host_pb2.ListOrphansRequest(node="node-9")
    assert (await refused(cloud.nodes.ListOrphans(listing, timeout=10)))[0] == "NODE_NOT_FOUND"


@pytest.mark.parametrize("call", [ask, discard])
async def test_the_machine_of_an_instance_is_neither_imported_nor_discarded(
    cloud: Cloud, call: Callable[[Cloud, str], Any]
) -> None:
    instance = await cloud.launch()
    reason, metadata = await refused(call(cloud, instance.id))
    assert (reason, metadata["instance"]) == ("MACHINE_ALREADY_MANAGED", "web-1")


@pytest.mark.parametrize(
    ("record", "fault", "reason"),
    [
        ("", "JSONDecodeError", "RECORD_UNREADABLE"),
        ("", "", "RECORD_INCOMPLETE"),
        ("[]", "", "RECORD_INCOMPLETE"),
        ('{"name": "web-1"}', "", "RECORD_INCOMPLETE"),
    ],
)
async def test_what_has_no_sufficient_record_is_listed_and_not_imported(
    disaster: Disaster, record: str, fault: str, reason: str
) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    disaster.runner.report(lost.id, record=record)
    disaster.runner.unreadable[lost.id] = fault
    async with disaster.controller() as cloud:
        (orphan,) = await orphans(cloud)
        assert (orphan.reason, orphan.importable) == (reason, False)
        assert (await refused(ask(cloud, lost.id)))[0] == "ORPHAN_NOT_IMPORTABLE"


async def test_a_repeated_import_has_the_same_answer(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    async with disaster.controller() as cloud:
        first = await ask(cloud, lost.id, request_id="once")
        await cloud.done(first)
        again = await ask(cloud, lost.id, request_id="once")
        assert (again.operation.id, again.replayed) == (first.operation.id, True)


async def test_an_import_that_fails_leaves_an_orphan_that_can_be_imported(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    async with disaster.controller() as cloud:
        reached = disaster.runner.at("claim")
        mutation = await ask(cloud, lost.id)
        await reached.wait()
        cancel = operation_pb2.CancelOperationRequest(id=mutation.operation.id)
        await cloud.operations.CancelOperation(cancel, timeout=10)
        disaster.runner.gates.pop("claim").set()
        final = await cloud.ended(mutation.operation.id)
        assert final.state == operation_pb2.OPERATION_STATE_CANCELLED
        assert disaster.runner.machines[lost.id].running
        assert [orphan.id for orphan in await orphans(cloud)] == [lost.id]
        await cloud.done(await ask(cloud, lost.id))


async def test_an_orphan_that_runs_is_removed_by_force_only(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch()
    async with disaster.controller() as cloud:
        assert (await refused(discard(cloud, lost.id)))[0] == "ORPHAN_RUNNING"
        await cloud.done(await discard(cloud, lost.id, force=True))
        assert disaster.runner.machines == {}
        assert disaster.store.pins == {}
        assert await orphans(cloud) == []


async def test_an_orphan_that_is_off_is_removed_when_asked(disaster: Disaster) -> None:
    async with disaster.controller() as cloud:
        lost = await cloud.launch(start=False)
    async with disaster.controller() as cloud:
        await cloud.done(await discard(cloud, lost.id))
        assert disaster.runner.machines == {}


async def test_a_machine_that_came_back_after_its_deletion_is_told_so(disaster: Disaster) -> None:
    async with disaster.controller("one") as cloud:
        instance = await cloud.launch()
        machine = disaster.runner.machines[instance.id]
        removal = await cloud.ask("Delete", force=True)
        await cloud.done(removal)
    disaster.runner.machines[instance.id] = machine
    async with disaster.controller("one") as cloud:
        (orphan,) = await orphans(cloud)
        assert orphan.reason == "DELETED"
        assert removal.operation.id in orphan.message
        # Nothing is done to it unasked; who wants it takes it back, who does not removes it.
        assert disaster.runner.machines[instance.id].running
        await cloud.done(await ask(cloud, instance.id))
        assert (await cloud.get()).status.state == instance_pb2.INSTANCE_STATE_RUNNING
