"""The whole path once more through the public gRPC services alone, with the specs of examples/."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from framework import guests
from framework.subject import Subject
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from qcontroller.controller.v1 import (
    host_pb2,
    host_pb2_grpc,
    instance_pb2,
    instance_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
)
from qcontroller.image.v1 import image_pb2, image_pb2_grpc

EXAMPLES = guests.ROOT / "examples"
DEADLINE_S = 60
DetailT = TypeVar("DetailT", error_details_pb2.ErrorInfo, error_details_pb2.BadRequest)


@pytest.fixture
async def controller(stack: Subject) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the controller's public port."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.layout.controller_port}") as channel:
        yield channel


@pytest.fixture
async def image_store(stack: Subject) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the image store's public port."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.layout.image_store_port}") as channel:
        yield channel


def example(name: str) -> instance_pb2.LaunchInstanceRequest:
    """Read one of the examples as gRPC clients send it."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    return json_format.Parse(text, instance_pb2.LaunchInstanceRequest())


def examples() -> Iterator[Any]:
    """Give the name of each, and leave out of containers the one whose card is on `user`."""
    for path in sorted(EXAMPLES.glob("*.json")):
        by_passt = '"network": "user"' in path.read_text(encoding="utf-8")
        marks = [pytest.mark.native("containers have no passt")] if by_passt else []
        yield pytest.param(path.name, marks=marks)


@pytest.mark.parametrize("file", list(examples()))
async def test_every_example_launches_answers_and_is_deleted(
    controller: grpc.aio.Channel, image_store: grpc.aio.Channel, file: str
) -> None:
    images = image_pb2_grpc.ImageServiceStub(image_store)
    instances = instance_pb2_grpc.InstanceServiceStub(controller)
    operations = operation_pb2_grpc.OperationServiceStub(controller)

    async def finished(mutation: instance_pb2.Mutation) -> operation_pb2.Operation:
        answer = await operations.WaitOperation(
            operation_pb2.WaitOperationRequest(id=mutation.operation.id, timeout="50s"), timeout=DEADLINE_S
        )
        assert answer.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED, answer.operation
        return answer.operation

    uploaded = await images.UploadImage(upload("tiny", guests.tiny()), timeout=DEADLINE_S)
    assert uploaded.image.format == "qcow2"

    request = example(file)
    launched = await instances.LaunchInstance(request, timeout=DEADLINE_S)
    await finished(launched.mutation)
    ready = await instances.WaitInstance(
        instance_pb2.WaitInstanceRequest(name=request.name, timeout="120s"), timeout=130
    )
    assert ready.instance.status.state == instance_pb2.INSTANCE_STATE_RUNNING
    answer = await instances.ExecInstance(
        instance_pb2.ExecInstanceRequest(name=request.name, argv=["/bin/uname", "-n"]), timeout=DEADLINE_S
    )
    assert answer.exit_code == 0
    await finished(
        (await instances.StopInstance(instance_pb2.StopInstanceRequest(name=request.name))).mutation
    )
    await finished(
        (await instances.DeleteInstance(instance_pb2.DeleteInstanceRequest(name=request.name))).mutation
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await instances.GetInstance(instance_pb2.GetInstanceRequest(name=request.name), timeout=DEADLINE_S)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert error_info(refused.value).reason == "INSTANCE_NOT_FOUND"
    assert error_info(refused.value).domain == "qcontroller"


async def test_faults_are_told_field_by_field(controller: grpc.aio.Channel) -> None:
    instances = instance_pb2_grpc.InstanceServiceStub(controller)
    request = instance_pb2.LaunchInstanceRequest(
        name="../x", image="tiny", vm=instance_pb2.VmSpec(memory="12X")
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await instances.LaunchInstance(request, timeout=DEADLINE_S)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(refused.value).reason == "FIELD_INVALID"
    fields = {
        violation.field
        for violation in details(refused.value, error_details_pb2.BadRequest()).field_violations
    }
    assert fields == {"/name", "/vm/memory"}


async def test_nodes_events_and_readiness_are_there_for_grpc_clients(controller: grpc.aio.Channel) -> None:
    nodes = host_pb2_grpc.NodeServiceStub(controller)
    (node,) = (await nodes.ListNodes(host_pb2.ListNodesRequest(), timeout=DEADLINE_S)).nodes
    assert node.state == host_pb2.NODE_STATE_READY
    assert node.qemu_version
    readiness = await nodes.GetReadiness(host_pb2.GetReadinessRequest(), timeout=DEADLINE_S)
    assert all(dependency.up for dependency in readiness.dependencies), readiness


@pytest.mark.parametrize(
    ("port", "services"),
    [
        (
            "controller_port",
            {
                "qcontroller.controller.v1.InstanceService",
                "qcontroller.controller.v1.OperationService",
                "qcontroller.controller.v1.EventService",
                "qcontroller.controller.v1.NodeService",
                "qcontroller.controller.v1.ImageImportService",
            },
        ),
        ("image_store_port", {"qcontroller.image.v1.ImageService"}),
    ],
)
async def test_health_and_reflection_tell_the_public_services_and_no_other(
    stack: Subject, port: str, services: set[str]
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{getattr(stack.layout, port)}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", *services):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for response in stub.ServerReflectionInfo(iter_async([request]), timeout=DEADLINE_S):
            names = {service.name for service in response.list_services_response.service}
            assert {name for name in names if name.startswith("qcontroller.")} == services
            break


async def iter_async(
    items: list[reflection_pb2.ServerReflectionRequest],
) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    """Yield `items`."""
    for item in items:
        yield item


def upload(name: str, file: Path) -> Iterator[image_pb2.UploadImageRequest]:
    """Yield the messages of an upload."""
    yield image_pb2.UploadImageRequest(
        upload=image_pb2.ImageUpload(name=name, content_length=file.stat().st_size)
    )
    with file.open("rb") as source:
        while chunk := source.read(1 << 20):
            yield image_pb2.UploadImageRequest(chunk=chunk)


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """Return the ErrorInfo that every error carries."""
    return details(error, error_details_pb2.ErrorInfo())


def details(error: grpc.aio.AioRpcError, kind: DetailT) -> DetailT:
    """Unpack the detail of `kind` from the status of `error`."""
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    for detail in status.details:
        if detail.Unpack(kind):
            return kind
    raise AssertionError(json.dumps([detail.type_url for detail in status.details]))
