"""What a patch changes when, what it refuses, and that cloud-init stays secret."""

import json
from typing import Any

import grpc
import pytest
from controller.errors import PeerAway
from controller.instances.updating import RESOURCES_NOTE, SEED_NOTE
from controller.operations.rows import events, idempotency, operations
from controller.records import instance_rows
from controller.records.schema import instances
from controller_fakes import Cloud, pointers_of, reason_of, refusal
from google.protobuf import json_format
from qcontroller.controller.v1 import instance_pb2 as pb
from sqlalchemy import select

OLD = pb.CloudInit(userdata="#cloud-config\nold-canary: 1\n", network_config="version: 2\n")


async def patched(cloud: Cloud, **fields: Any) -> pb.UpdateInstanceResponse:
    request = pb.UpdateInstanceRequest(name="web-1", **fields)
    answer: pb.UpdateInstanceResponse = await cloud.instances.UpdateInstance(request, timeout=10)
    return answer


async def refused(cloud: Cloud, **fields: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await patched(cloud, **fields)
    return caught.value


async def test_another_cloud_init_is_written_at_the_next_start_under_another_id(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False, cloud_init=OLD)
    first = cloud.runner.specs[instance.id]
    answer = await patched(cloud, cloud_init=pb.CloudInitPatch(userdata="#cloud-config\nnew: 1\n"))
    assert list(answer.notes) == [SEED_NOTE]
    await cloud.done(answer.mutation)
    assert cloud.runner.specs[instance.id] is first
    await cloud.verb("Start")
    second = cloud.runner.specs[instance.id]
    assert (first.seed_id, second.seed_id) == (instance.id, f"{instance.id}-1")
    assert second.user_data == b"#cloud-config\nnew: 1\n"
    assert second.network_config == OLD.network_config


async def test_what_is_empty_takes_cloud_init_away(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False, cloud_init=OLD)
    patch = pb.CloudInitPatch(userdata="", network_config="")
    await cloud.done((await patched(cloud, cloud_init=patch)).mutation)
    await cloud.verb("Start")
    spec = cloud.runner.specs[instance.id]
    assert (spec.user_data, spec.network_config) == (b"", "")


async def test_the_same_cloud_init_again_is_a_change_too_so_that_nobody_can_guess_it(cloud: Cloud) -> None:
    await cloud.launch(start=False, cloud_init=OLD)
    answer = await patched(cloud, cloud_init=pb.CloudInitPatch(userdata=OLD.userdata))
    assert answer.mutation.HasField("operation")
    await cloud.done(answer.mutation)


async def test_cloud_init_of_a_running_instance_is_refused_naming_state_and_what_is_allowed(
    cloud: Cloud,
) -> None:
    await cloud.launch()
    error = await refused(cloud, cloud_init=pb.CloudInitPatch(userdata="x"))
    reason, metadata = reason_of(error)
    assert (reason, metadata["state"]) == ("INSTANCE_STATE_CONFLICT", "RUNNING")
    assert "stop" in metadata["allowed"].split(",")


async def test_cpus_of_a_running_instance_are_refused_naming_state_and_what_is_allowed(cloud: Cloud) -> None:
    await cloud.launch()
    reason, metadata = reason_of(await refused(cloud, cpus=2))
    assert (reason, metadata["state"]) == ("INSTANCE_STATE_CONFLICT", "RUNNING")
    assert metadata["allowed"].split(",")


async def test_a_disk_that_is_to_shrink_is_a_fault(cloud: Cloud) -> None:
    await cloud.launch(start=False, vm=pb.VmSpec(disk="128M"))
    error = await refused(cloud, disk="127M")
    assert (reason_of(error)[0], pointers_of(error)) == ("FIELD_INVALID", {"/vm/disk"})


async def test_cloud_init_that_is_too_large_is_a_fault(cloud: Cloud) -> None:
    await cloud.launch(start=False)
    error = await refused(cloud, cloud_init=pb.CloudInitPatch(userdata="x" * (512 * 1024 + 1)))
    assert pointers_of(error) == {"/cloudInit/userdata"}


async def test_a_stale_generation_is_refused_before_anything_else(cloud: Cloud) -> None:
    await cloud.launch()
    options = pb.MutationOptions(if_match="99-1")
    assert reason_of(await refused(cloud, cpus=2, disk="1M", options=options))[0] == "PRECONDITION_FAILED"


async def test_the_answer_tells_what_takes_effect_at_the_next_start(cloud: Cloud) -> None:
    await cloud.launch(start=False)
    answer = await patched(cloud, cpus=2, labels={"a": "b"})
    assert list(answer.notes) == [RESOURCES_NOTE]
    await cloud.done(answer.mutation)
    assert list((await patched(cloud, labels={"a": "c"})).notes) == []


async def test_what_stays_as_it_was_is_not_said_to_take_effect_later(cloud: Cloud) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICnvNSUtMI4qBdkDs++uRNCRBb8ELEmU1gwqD/zv5S+J"
    await cloud.launch(start=False, ssh_keys=[key])
    keys, cpus = pb.StringList(items=[key]), 1
    assert list((await patched(cloud, ssh_keys=keys, cpus=cpus)).notes) == []
    labelled = await patched(cloud, ssh_keys=keys, cpus=cpus, labels={"a": "b"})
    assert list(labelled.notes) == []
    await cloud.done(labelled.mutation)
    assert list((await patched(cloud, ssh_keys=pb.StringList(), cpus=cpus)).notes) == [SEED_NOTE]


async def test_a_change_that_fails_takes_its_cloud_init_back_too(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False, cloud_init=OLD)
    cloud.runner.faults["prepare"] = [refusal("DISK_UNSAFE")]
    patch = pb.CloudInitPatch(userdata="#cloud-config\nnew: 1\n")
    answer = await patched(cloud, disk="128M", cloud_init=patch)
    assert (await cloud.ended(answer.mutation.operation.id)).error.reason == "DISK_UNSAFE"
    await cloud.verb("Start")
    spec = cloud.runner.specs[instance.id]
    assert (spec.user_data, spec.seed_id) == (OLD.userdata.encode(), instance.id)
    secrets = await cloud.database.read(lambda conn: instance_rows.all_secrets_of(conn, instance.id))
    assert set(secrets) == {OLD.userdata, OLD.network_config}


async def test_a_delete_leaves_nothing_of_a_cloud_init_that_was_wanted(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False, cloud_init=OLD)
    at_prepare = cloud.runner.at("prepare")
    patch = pb.CloudInitPatch(userdata="wanted-canary")
    await patched(cloud, disk="128M", cloud_init=patch)
    await at_prepare.wait()
    deleting = await cloud.ask("Delete")
    cloud.runner.gates.pop("prepare").set()
    await cloud.done(deleting)
    assert await cloud.database.read(lambda conn: instance_rows.all_secrets_of(conn, instance.id)) == ()


async def test_no_answer_event_or_operation_shows_what_cloud_init_was_changed_to(cloud: Cloud) -> None:
    await cloud.launch(start=False)
    answer = await patched(cloud, cloud_init=pb.CloudInitPatch(userdata="patch-canary-1"))
    operation = await cloud.done(answer.mutation)
    shown = json.dumps(json_format.MessageToDict(answer)) + str(operation) + str(await cloud.get())

    def rows(conn: Any) -> str:
        tables = (operations, events, idempotency, instances)
        return "".join(str(conn.execute(select(table)).all()) for table in tables)

    assert "patch-canary-1" not in shown + await cloud.database.read(rows)


async def test_labels_and_policies_of_a_running_instance_are_in_its_machines_record_at_once(
    cloud: Cloud,
) -> None:
    instance = await cloud.launch(start=True, labels={"team": "web"})
    await cloud.done((await patched(cloud, labels={"team": "db"}, protected=True)).mutation)
    record = json.loads(cloud.runner.machines[instance.id].record)
    assert (record["labels"], record["policies"]["protected"]) == ({"team": "db"}, True)


async def test_a_record_goes_on_telling_of_the_files_that_there_are(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False, cloud_init=OLD)
    seed = pb.CloudInitPatch(userdata="#cloud-config\nnew: 1\n")
    await cloud.done((await patched(cloud, cloud_init=seed)).mutation)
    await cloud.done((await patched(cloud, labels={"a": "b"})).mutation)
    assert "seedRevision" not in json.loads(cloud.runner.machines[instance.id].record)
    await cloud.verb("Start")
    assert cloud.runner.specs[instance.id].user_data == b"#cloud-config\nnew: 1\n"


@pytest.mark.parametrize("fault", [PeerAway("RUNNER_UNAVAILABLE", "gone"), refusal("DISK_FULL")])
async def test_a_runner_that_cannot_write_the_record_does_not_hinder_labels(
    cloud: Cloud, fault: Exception
) -> None:
    instance = await cloud.launch(start=False)
    cloud.runner.faults["claim"] = [fault]
    operation = await cloud.done((await patched(cloud, labels={"a": "b"})).mutation)
    assert any("at the next start" in line.message for line in operation.log)
    await cloud.verb("Start")
    assert json.loads(cloud.runner.machines[instance.id].record)["labels"] == {"a": "b"}
