"""sshKeys, hostname, packages and a user-data of bytes, from the launch to the runner and back."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller.domain.first_boot import FirstBoot
from controller.instances.updating import SEED_NOTE
from controller.records import instance_rows
from controller_fakes import Cloud, FakeRunner, FakeStore, pointers_of, reason_of, refusal, running_cloud
from qcontroller.controller.v1 import instance_pb2 as pb

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICnvNSUtMI4qBdkDs++uRNCRBb8ELEmU1gwqD/zv5S+J"
WANTED: dict[str, Any] = {
    "ssh_keys": [f" {KEY}  me@host\n"],
    "hostname": "web.example.org",
    "packages": ["nginx", "g++"],
}
KEPT = FirstBoot((f"{KEY} me@host",), "web.example.org", ("nginx", "g++"))


async def patched(cloud: Cloud, **fields: Any) -> pb.UpdateInstanceResponse:
    request = pb.UpdateInstanceRequest(name="web-1", **fields)
    answer: pb.UpdateInstanceResponse = await cloud.instances.UpdateInstance(request, timeout=10)
    return answer


def shown(instance: pb.Instance) -> FirstBoot:
    return FirstBoot(tuple(instance.ssh_keys), instance.hostname, tuple(instance.packages))


async def test_what_is_asked_for_is_shown_and_reaches_the_runner(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False, **WANTED)
    assert shown(instance) == KEPT
    spec = cloud.runner.specs[instance.id]
    assert (spec.first_boot, spec.user_data) == (KEPT, b"")
    assert json.loads(spec.first_boot.vendor_data.splitlines()[1]) == {"packages": ["nginx", "g++"]}


async def test_every_fault_is_told_at_once(cloud: Cloud) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await cloud.launch(
            ssh_keys=[KEY, "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0LWNhbmFyeQ=="],
            hostname="a_b",
            packages=["--purge"],
            cloud_init=pb.CloudInit(userdata="a", userdata_base64=b"b", network_config="version: 3"),
        )
    assert pointers_of(error.value) == {
        "/sshKeys/1", "/hostname", "/packages/0", "/cloudInit/userdataBase64", "/cloudInit/networkConfig",
    }  # fmt: skip
    assert "c2VjcmV0" not in str(error.value)


@pytest.mark.parametrize(
    ("seed", "pointer"),
    [
        (pb.CloudInit(userdata="x" * (512 * 1024 + 1)), "/cloudInit/userdata"),
        (pb.CloudInit(userdata_base64=bytes(512 * 1024 + 1)), "/cloudInit/userdataBase64"),
        (pb.CloudInit(network_config="#" * (64 * 1024 + 1)), "/cloudInit/networkConfig"),
    ],
)
async def test_a_text_beyond_its_size_is_refused(cloud: Cloud, seed: pb.CloudInit, pointer: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await cloud.launch(cloud_init=seed)
    assert pointers_of(error.value) == {pointer}


async def test_bytes_reach_the_runner_as_they_are_and_are_shown_nowhere(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    data = gzip.compress(b"#cloud-config\npassword: binary-canary-1\n") + bytes(range(256))
    instance = await cloud.launch(start=False, cloud_init=pb.CloudInit(userdata_base64=data))
    assert cloud.runner.specs[instance.id].user_data == data
    other = gzip.compress(b"#cloud-config\npassword: binary-canary-2\n")
    await cloud.done((await patched(cloud, cloud_init=pb.CloudInitPatch(userdata_base64=other))).mutation)
    # What a guest prints of it is its content.
    secrets = await cloud.database.read(lambda conn: instance_rows.all_secrets_of(conn, instance.id))
    assert "binary-canary-2" in secrets[0]
    await cloud.verb("Start")
    assert cloud.runner.specs[instance.id].user_data == other
    assert repr(other)[2:40] not in str(await cloud.get()) + caplog.text
    assert "binary-canary" not in str(await cloud.get()) + caplog.text


async def test_remarks_are_warnings_of_a_plan_and_notes_of_a_patch(cloud: Cloud) -> None:
    request = pb.LaunchInstanceRequest(
        name="web-1",
        image="tiny",
        validate_only=True,
        cloud_init=pb.CloudInit(userdata="#cloud-config\nCANARY: ["),
    )
    plan = (await cloud.instances.LaunchInstance(request, timeout=10)).plan
    (warning,) = plan.warnings
    assert "not YAML" in warning
    assert "CANARY" not in str(plan)
    await cloud.launch(start=False)
    answer = await patched(cloud, cloud_init=pb.CloudInitPatch(userdata="hello"))
    assert answer.notes[0] == SEED_NOTE
    assert "ignored" in answer.notes[1]


async def test_a_patch_is_another_first_boot(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False, cloud_init=pb.CloudInit(userdata="#!kept"), **WANTED)
    answer = await patched(cloud, hostname="", packages=pb.StringList())
    assert list(answer.notes) == [SEED_NOTE]
    await cloud.done(answer.mutation)
    assert shown(await cloud.get()) == FirstBoot(KEPT.ssh_keys)
    await cloud.verb("Start")
    spec = cloud.runner.specs[instance.id]
    assert spec.seed_id == f"{instance.id}-1"
    assert (spec.first_boot, spec.user_data) == (FirstBoot(KEPT.ssh_keys), b"#!kept")


async def test_a_patch_that_changes_nothing_is_no_other_first_boot(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False, **WANTED)
    answer = await patched(
        cloud, ssh_keys=pb.StringList(items=WANTED["ssh_keys"]), hostname="web.example.org"
    )
    assert not answer.mutation.HasField("operation")
    await cloud.verb("Start")
    assert cloud.runner.specs[instance.id].seed_id == instance.id


async def test_a_running_instance_has_had_its_first_boot(cloud: Cloud) -> None:
    await cloud.launch(**WANTED)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await patched(cloud, packages=pb.StringList(items=["vim"]))
    assert reason_of(error.value)[0] == "INSTANCE_STATE_CONFLICT"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await patched(cloud, packages=pb.StringList(items=["-x"]), ssh_keys=pb.StringList(items=["x"]))
    assert pointers_of(error.value) == {"/packages/0", "/sshKeys/0"}


async def test_a_change_that_fails_is_taken_back(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False, **WANTED)
    cloud.runner.faults["prepare"] = [refusal("DISK_FULL")]
    answer = await patched(cloud, disk="128M", hostname="other")
    await cloud.ended(answer.mutation.operation.id)
    assert shown(await cloud.get()) == KEPT
    await cloud.verb("Start")
    assert (cloud.runner.specs[instance.id].first_boot, cloud.runner.specs[instance.id].seed_id) == (
        KEPT,
        instance.id,
    )


async def test_they_come_back_with_a_machine_that_is_imported_and_a_change_alone_would_lose_the_seed(
    tmp_path: Path,
) -> None:
    runner, store = FakeRunner(), FakeStore()
    for name in ("lost", "new"):
        (tmp_path / name).mkdir()
    async with running_cloud(tmp_path / "lost", runner, store) as cloud:
        lost = await cloud.launch(start=False, **WANTED)
    async with running_cloud(tmp_path / "new", runner, store) as cloud:
        request = pb.ImportInstanceRequest(node="node-1", id=lost.id)
        await cloud.done((await cloud.instances.ImportInstance(request, timeout=10)).mutation)
        assert shown(await cloud.get()) == KEPT
        with pytest.raises(grpc.aio.AioRpcError, match="was imported") as error:
            await patched(cloud, hostname="other")
        assert pointers_of(error.value) == {"/cloudInit/userdata", "/cloudInit/networkConfig"}
        seed = pb.CloudInitPatch(userdata="", network_config="")
        await cloud.done((await patched(cloud, hostname="other", cloud_init=seed)).mutation)
        assert shown(await cloud.get()).hostname == "other"
