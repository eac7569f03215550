"""REST and gRPC are one contract: every operation has its RPC, every field its field."""

from collections.abc import Iterator
from typing import Any

import pytest
from framework.api_client import Contract
from google.protobuf.descriptor import ServiceDescriptor
from qcontroller.controller.v1 import console_pb2, host_pb2, image_import_pb2, instance_pb2, operation_pb2
from qcontroller.event.v1 import event_pb2
from qcontroller.image.v1 import image_pb2

CONTRACT = Contract()
SERVICES: tuple[ServiceDescriptor, ...] = (
    instance_pb2.DESCRIPTOR.services_by_name["InstanceService"],
    operation_pb2.DESCRIPTOR.services_by_name["OperationService"],
    host_pb2.DESCRIPTOR.services_by_name["EventService"],
    host_pb2.DESCRIPTOR.services_by_name["NodeService"],
    image_pb2.DESCRIPTOR.services_by_name["ImageService"],
    image_import_pb2.DESCRIPTOR.services_by_name["ImageImportService"],
)
# Named otherwise in gRPC: a form is one more way to upload; /readyz asks for the readiness.
OTHER_NAMES = {"uploadImageForm": "UploadImage"}
# What HTTP alone has.
HTTP_ONLY = {"createConsoleTicket", "getHealth", "getMetrics", "getSpecification"}
# `Prefer: wait` of REST.
GRPC_ONLY = {"WaitOperation"}

# A schema of the contract, its message, what one of both alone has.
TWINS = [
    ("Launch", instance_pb2.LaunchInstanceRequest, {"validateOnly", "options"}),
    ("PortSpec", instance_pb2.PortMapping, set()),
    ("Stop", instance_pb2.StopInstanceRequest, {"name", "options"}),
    ("Restart", instance_pb2.RestartInstanceRequest, {"name", "options"}),
    ("Exec", instance_pb2.ExecInstanceRequest, {"name"}),
    ("ExecResult", instance_pb2.ExecInstanceResponse, {"stdoutBase64", "stderrBase64"}),
    ("Instance", instance_pb2.Instance, {"etag", "notes"}),
    ("Exec", instance_pb2.StreamExecRequest, {"name"}),
    ("ExecMessage", instance_pb2.StreamExecResponse, {"stdoutBase64", "stderrBase64"}),
    ("ConsoleCommand", console_pb2.ConsoleCommand, {"inputBase64"}),
    ("ConsoleMessage", console_pb2.ConsoleNews, {"output"}),
    ("GuestFile", instance_pb2.GuestFile, set()),
    ("GuestPassword", instance_pb2.SetGuestPasswordRequest, {"name"}),
    ("GuestSshKeys", instance_pb2.AuthoriseSshKeysRequest, {"name"}),
    ("GuestFreeze", instance_pb2.FreezeGuestRequest, {"name"}),
    ("GuestFrozen", instance_pb2.FreezeGuestResponse, set()),
    ("GuestThawed", instance_pb2.ThawGuestResponse, set()),
    ("GuestReport", instance_pb2.GuestReport, set()),
    ("GuestInterface", instance_pb2.GuestInterface, set()),
    ("GuestTimeZone", instance_pb2.GuestTimeZone, set()),
    ("InstanceStatus", instance_pb2.InstanceStatus, set()),
    ("Lease", instance_pb2.RenewLeaseResponse, set()),
    ("Lease", instance_pb2.HoldLeaseResponse, set()),
    ("InstanceList", instance_pb2.ListInstancesResponse, set()),
    ("LaunchPlan", instance_pb2.LaunchPlan, set()),
    ("Operation", operation_pb2.Operation, {"notes"}),
    ("OperationList", operation_pb2.ListOperationsResponse, set()),
    ("Image", image_pb2.Image, {"etag"}),
    ("ImageList", image_pb2.ListImagesResponse, set()),
    ("Event", event_pb2.Event, set()),
    ("Node", host_pb2.Node, set()),
    ("NodeList", host_pb2.ListNodesResponse, set()),
    ("Leaks", host_pb2.ListLeaksResponse, set()),
    ("Import", instance_pb2.ImportInstanceRequest, {"options"}),
    ("ImageImport", image_import_pb2.ImportImageRequest, {"options"}),
    ("Orphans", host_pb2.ListOrphansResponse, set()),
    ("Orphan", host_pb2.Orphan, set()),
    ("VmHost", host_pb2.VmHost, set()),
    ("Doctor", host_pb2.RunDoctorResponse, set()),
]
ENUMS = [
    ("InstanceState", instance_pb2.InstanceState),
    ("ImageState", image_pb2.ImageState),
    ("OperationState", operation_pb2.OperationState),
]


def operation_ids() -> Iterator[str]:
    for item in CONTRACT.document["paths"].values():
        for method, operation in item.items():
            if method != "parameters":
                yield operation["operationId"]


def rpcs() -> set[str]:
    return {method.name for service in SERVICES for method in service.methods}


def test_every_rest_operation_has_its_rpc_and_no_rpc_is_without_one() -> None:
    wanted = {
        OTHER_NAMES.get(name, name[0].upper() + name[1:]) for name in operation_ids() if name not in HTTP_ONLY
    }
    assert wanted == rpcs() - GRPC_ONLY


@pytest.mark.parametrize(("schema", "message", "alone"), TWINS, ids=[twin[0] for twin in TWINS])
def test_rest_and_grpc_know_the_same_fields(schema: str, message: Any, alone: set[str]) -> None:
    here = set(CONTRACT.schema(schema)["properties"])
    there = {field.json_name for field in message.DESCRIPTOR.fields}
    assert here ^ there == alone


@pytest.mark.parametrize(("schema", "enum"), ENUMS, ids=[enum[0] for enum in ENUMS])
def test_rest_and_grpc_know_the_same_states(schema: str, enum: Any) -> None:
    names = [name.rsplit("STATE_", maxsplit=1)[1] for name in enum.keys()]  # noqa: SIM118 - a wrapper, no dict
    assert ["UNSPECIFIED", *CONTRACT.schema(schema)["enum"]] == names
