"""Images from URLs: imported by an operation, or by the launch that wants them."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller.domain.fault import Fault
from controller.domain.image_source import name_of_digest, shown_url
from controller.errors import PeerRefused, Refusal
from controller_fakes import Cloud, FakeStore, pointers_of, reason_of, refusal, running_cloud
from google.protobuf import json_format
from qcontroller.controller.v1 import image_import_pb2, operation_pb2
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1.host_pb2 import WatchEventsRequest

URL = "https://me:pass@example.org/disk.qcow2?signature=secret"
SHOWN = "https://example.org/disk.qcow2?…"
SERVED = "sha256:" + "cd" * 32
NAME = name_of_digest(SERVED)
FAILED = operation_pb2.OPERATION_STATE_FAILED
CANCELLED = operation_pb2.OPERATION_STATE_CANCELLED


def import_request(**fields: Any) -> image_import_pb2.ImportImageRequest:
    return image_import_pb2.ImportImageRequest(
        **{"name": "debian-12", "url": URL, "digest": SERVED, **fields}
    )


async def import_image(cloud: Cloud, **fields: Any) -> image_import_pb2.ImportImageResponse:
    answer: image_import_pb2.ImportImageResponse = await cloud.imports.ImportImage(
        import_request(**fields), timeout=10
    )
    return answer


def launch_request(**fields: Any) -> pb.LaunchInstanceRequest:
    return pb.LaunchInstanceRequest(
        **{"name": "web-1", "image": URL, "image_digest": SERVED, "start": True, **fields}
    )


async def launch(cloud: Cloud, **fields: Any) -> pb.Mutation:
    mutation: pb.Mutation = (
        await cloud.instances.LaunchInstance(launch_request(**fields), timeout=10)
    ).mutation
    return mutation


async def cancel(cloud: Cloud, operation_id: str) -> operation_pb2.Operation:
    await cloud.operations.CancelOperation(operation_pb2.CancelOperationRequest(id=operation_id), timeout=10)
    return await cloud.ended(operation_id)


async def kept_urls(cloud: Cloud) -> int:
    return await cloud.database.read(
        lambda conn: int(conn.exec_driver_sql("SELECT count(*) FROM image_sources").scalar_one())
    )


async def test_an_import_is_an_operation_with_progress(cloud: Cloud) -> None:
    answer = await import_image(cloud, labels={"team": "web"}, arch="aarch64")
    operation = await cloud.ended(answer.operation.id)
    assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    assert (operation.kind, operation.result) == ("import-image", "/v1/images/debian-12")
    assert operation.instance == ""
    assert [stage.name for stage in operation.stages] == ["fetch"]
    assert (operation.progress.done, operation.progress.total, operation.progress.unit) == (
        1000,
        4000,
        "bytes",
    )
    found = await cloud.store.find("debian-12")
    assert (found.image.digest, found.arch, found.labels) == (SERVED, "aarch64", {"team": "web"})
    assert await kept_urls(cloud) == 0


async def test_an_import_of_what_is_there_is_a_no_op(cloud: Cloud) -> None:
    await cloud.ended((await import_image(cloud)).operation.id)
    assert not (await import_image(cloud)).HasField("operation")
    assert len(cloud.store.fetches) == 1


async def test_other_bytes_for_the_name_are_fetched(cloud: Cloud) -> None:
    await cloud.ended((await import_image(cloud)).operation.id)
    other = "sha256:" + "ef" * 32
    await cloud.ended((await import_image(cloud, digest=other)).operation.id)
    assert (await cloud.store.find("debian-12")).image.digest == other


async def test_two_imports_of_one_name_do_not_run_at_once(cloud: Cloud) -> None:
    cloud.store.held = asyncio.Event()
    first = await import_image(cloud)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await import_image(cloud, digest="sha256:" + "ef" * 32)
    reason, metadata = reason_of(refused.value)
    assert reason == "OPERATION_IN_PROGRESS"
    assert metadata["operation"] == f"/v1/operations/{first.operation.id}"
    cloud.store.held.set()
    await cloud.ended(first.operation.id)


async def test_the_same_key_is_answered_once(cloud: Cloud) -> None:
    options = pb.MutationOptions(request_id="key")
    first = await import_image(cloud, options=options)
    second = await import_image(cloud, options=options)
    assert second.replayed
    assert second.operation.id == first.operation.id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await import_image(cloud, options=options, url=URL + "2")
    assert reason_of(refused.value)[0] == "IDEMPOTENCY_KEY_REUSED"


async def test_a_cancelled_import_leaves_nothing(cloud: Cloud) -> None:
    cloud.store.held = asyncio.Event()
    answer = await import_image(cloud)
    await cloud.store.begun.wait()
    operation = await cancel(cloud, answer.operation.id)
    assert operation.state == CANCELLED
    assert cloud.store.undone == ["debian-12"]
    assert cloud.store.fetched == {}
    assert await kept_urls(cloud) == 0


async def test_a_failed_import_tells_why_and_leaves_nothing(cloud: Cloud) -> None:
    cloud.store.failing = refusal("IMAGE_DIGEST_MISMATCH", "INVALID_ARGUMENT")
    operation = await cloud.ended((await import_image(cloud)).operation.id)
    assert (operation.state, operation.error.reason) == (FAILED, "IMAGE_DIGEST_MISMATCH")
    assert len(cloud.store.fetches) == 1
    assert await kept_urls(cloud) == 0


async def test_a_server_that_is_away_is_asked_again(cloud: Cloud) -> None:
    cloud.store.failing = refusal("IMAGE_SOURCE_UNAVAILABLE", "UNAVAILABLE")
    operation = await cloud.ended((await import_image(cloud)).operation.id)
    assert (operation.state, operation.error.reason) == (FAILED, "IMAGE_SOURCE_UNAVAILABLE")
    assert len(cloud.store.fetches) == 5


async def test_what_will_not_be_fetched_files_nothing(cloud: Cloud) -> None:
    cloud.store.forbidden = refusal("IMAGE_SOURCE_FORBIDDEN", "INVALID_ARGUMENT")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await import_image(cloud)
    assert reason_of(refused.value)[0] == "IMAGE_SOURCE_FORBIDDEN"
    assert cloud.store.fetches == []


async def test_faults_point_into_the_request(cloud: Cloud) -> None:
    faults = (Fault("/url", "no"), Fault("/expectedDigest", "no"), Fault("/labels/a", "no"))
    cloud.store.forbidden = PeerRefused(Refusal("INVALID_ARGUMENT", "FIELD_INVALID", "no", {}, faults))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await import_image(cloud)
    assert pointers_of(refused.value) == {"/url", "/digest", "/labels/a"}


async def test_a_store_that_is_away_files_nothing(cloud: Cloud) -> None:
    cloud.store.away = True
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await import_image(cloud)
    assert reason_of(refused.value)[0] == "IMAGE_STORE_UNAVAILABLE"


async def test_a_launch_imports_its_image_pins_and_starts(cloud: Cloud) -> None:
    operation = await cloud.done(await launch(cloud))
    assert [stage.name for stage in operation.stages] == ["image", "machine", "power", "running"]
    instance = await cloud.get()
    assert (instance.image, instance.image_digest) == (NAME, SERVED)
    assert instance.vm.disk == 64
    assert cloud.store.pins == {instance.id: SERVED}
    assert cloud.runner.machines[instance.id].running
    assert await kept_urls(cloud) == 0


async def test_a_launch_of_what_is_there_fetches_nothing(cloud: Cloud) -> None:
    await cloud.ended((await import_image(cloud)).operation.id)
    await cloud.done(await launch(cloud))
    assert (await cloud.get()).image == "debian-12"
    assert len(cloud.store.fetches) == 1


async def test_an_instance_whose_image_comes_shows_what_is_known(cloud: Cloud) -> None:
    cloud.store.held = asyncio.Event()
    mutation = await launch(cloud, vm=pb.VmSpec(disk="1G"))
    await cloud.store.begun.wait()
    instance = await cloud.get()
    assert instance.status.state == pb.INSTANCE_STATE_CREATING
    assert (instance.image, instance.image_digest, instance.vm.disk) == (NAME, SERVED, 1024)
    cloud.store.held.set()
    await cloud.done(mutation)


async def test_a_launch_that_is_cancelled_while_it_fetches_leaves_no_instance(cloud: Cloud) -> None:
    cloud.store.held = asyncio.Event()
    mutation = await launch(cloud)
    await cloud.store.begun.wait()
    assert (await cancel(cloud, mutation.operation.id)).state == CANCELLED
    await cloud.gone()
    assert cloud.store.pins == {}
    assert await kept_urls(cloud) == 0


async def test_a_launch_whose_image_cannot_be_had_leaves_no_instance(cloud: Cloud) -> None:
    cloud.store.failing = refusal("IMAGE_SOURCE_REFUSED")
    operation = await cloud.ended((await launch(cloud)).operation.id)
    assert (operation.state, operation.error.reason) == (FAILED, "IMAGE_SOURCE_REFUSED")
    await cloud.gone()
    assert await kept_urls(cloud) == 0


async def test_an_image_that_does_not_fit_the_disk_fails_the_launch_and_stays(cloud: Cloud) -> None:
    cloud.store.served_mib = 2048
    operation = await cloud.ended((await launch(cloud, vm=pb.VmSpec(disk="1G"))).operation.id)
    assert (operation.error.reason, operation.error.metadata["pointer"]) == ("FIELD_INVALID", "/vm/disk")
    await cloud.gone()
    assert list(cloud.store.fetched) == [NAME]


async def test_an_image_that_does_not_fit_the_node_fails_the_launch(cloud: Cloud) -> None:
    cloud.store.served_mib = 1 << 30
    operation = await cloud.ended((await launch(cloud)).operation.id)
    assert operation.error.reason == "HOST_CAPACITY_EXHAUSTED"
    await cloud.gone()


async def test_a_forced_stop_keeps_the_instance_and_a_start_fetches_again(cloud: Cloud) -> None:
    cloud.store.held = asyncio.Event()
    await launch(cloud)
    await cloud.store.begun.wait()
    stopped = await cloud.verb("Stop", force=True)
    assert stopped.status.state == pb.INSTANCE_STATE_STOPPED
    cloud.store.held.set()
    assert (await cloud.verb("Start")).status.state == pb.INSTANCE_STATE_RUNNING
    assert len(cloud.store.fetches) == 2
    assert (await cloud.get()).vm.disk == 64


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"image_digest": ""}, {"/imageDigest"}),
        ({"image_digest": "sha256:12"}, {"/imageDigest"}),
        ({"image": "ftp://example.org/disk"}, {"/image"}),
        ({"image": "file:///etc/passwd", "image_digest": ""}, {"/image", "/imageDigest"}),
        ({"name": "-", "image_digest": ""}, {"/name", "/imageDigest"}),
    ],
)
async def test_a_launch_from_a_bad_url_is_refused(
    cloud: Cloud, fields: dict[str, str], pointers: set[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await launch(cloud, **fields)
    assert pointers_of(refused.value) == pointers


async def test_what_the_store_says_of_the_url_is_told_of_the_image(cloud: Cloud) -> None:
    faults = (Fault("/url", "no"),)
    cloud.store.forbidden = PeerRefused(Refusal("INVALID_ARGUMENT", "FIELD_INVALID", "no", {}, faults))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await launch(cloud)
    assert pointers_of(refused.value) == {"/image"}


async def test_a_preview_of_a_launch_from_a_url_fetches_nothing(cloud: Cloud) -> None:
    plan = (await cloud.instances.LaunchInstance(launch_request(validate_only=True), timeout=10)).plan
    assert any("fetched first" in warning for warning in plan.warnings)
    assert cloud.store.fetches == []
    assert await kept_urls(cloud) == 0


async def test_secrets_of_a_url_are_shown_nowhere(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    stream = cloud.events.WatchEvents(WatchEventsRequest())
    await stream.initial_metadata()
    cloud.store.failing = refusal("IMAGE_SOURCE_REFUSED")
    operations = [
        await cloud.ended((await import_image(cloud)).operation.id),
        await cloud.ended((await launch(cloud)).operation.id),
    ]
    told = [json_format.MessageToJson(operation, ensure_ascii=False) for operation in operations]
    assert all(SHOWN in text for text in told)
    finished = 0
    while finished < 2:
        event = (await anext(stream.__aiter__())).event
        told.append(json_format.MessageToJson(event))
        finished += event.type == "operation.finished"
    stream.cancel()
    told += [record.getMessage() + str(record.__dict__) for record in caplog.records]
    assert not any(secret in text for secret in ("me:pass", "signature=secret") for text in told)


async def test_fetches_keep_no_slot_from_others(tmp_path: Path) -> None:
    store = FakeStore(held=asyncio.Event())
    async with running_cloud(tmp_path, store=store, operation_slots=1) as cloud:
        first = await import_image(cloud)
        await store.begun.wait()
        await cloud.launch()
        assert store.held is not None
        store.held.set()
        await cloud.ended(first.operation.id)


async def test_a_controller_that_starts_again_goes_on_with_a_fetch(tmp_path: Path) -> None:
    store = FakeStore(held=asyncio.Event())
    async with running_cloud(tmp_path, store=store) as cloud:
        mutation = await launch(cloud)
        imported = await import_image(cloud)
        await store.begun.wait()
    store.held = None
    async with running_cloud(tmp_path, store=store) as cloud:
        await cloud.done(mutation)
        operation = await cloud.ended(imported.operation.id)
        assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
        assert await kept_urls(cloud) == 0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, SHOWN),
        ("http://example.org:8080/a", "http://example.org:8080/a"),
        ("http://[::1", "a URL"),
        ("http://a@b@example.org/", "http://example.org/"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown
