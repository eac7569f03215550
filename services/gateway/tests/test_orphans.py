"""Quarantined machines over REST."""

import grpc
import pytest
from framework.api_client import ApiClient
from gateway_fakes import Stand, operation
from qcontroller.controller.v1 import host_pb2, instance_pb2, operation_pb2
from servicekit.rpc_errors import RpcProblem

ID = "7d0c0c0c-0000-4000-8000-000000000000"
ORPHAN = f"/v1/nodes/node-1/orphans/{ID}"
IMPORT = {"node": "node-1", "id": ID}


async def test_the_orphans_of_a_node_are_listed(client: ApiClient, rest: Stand) -> None:
    (orphan,) = (await client.get("/v1/nodes/node-1/orphans")).json()["orphans"]
    assert (orphan["id"], orphan["running"], orphan["sizeBytes"]) == (ID, True, 2**33)
    assert rest.controller.requests[-1] == host_pb2.ListOrphansRequest(node="node-1")


async def test_an_import_answers_the_operation(client: ApiClient, rest: Stand) -> None:
    response = await client.post("/v1/instances/import", json={**IMPORT, "name": "web-2"})
    assert (response.status_code, response.headers["location"]) == (202, "/v1/operations/op-1")
    request = rest.controller.requests[-1]
    assert (request.node, request.id, request.name) == ("node-1", ID, "web-2")


async def test_a_waited_import_answers_the_instance(client: ApiClient, rest: Stand) -> None:
    done = operation("import", operation_pb2.OPERATION_STATE_SUCCEEDED)
    rest.controller.answers["WaitOperation"] = operation_pb2.WaitOperationResponse(operation=done)
    response = await client.post("/v1/instances/import", json=IMPORT, headers={"Prefer": "wait=60"})
    assert (response.status_code, response.headers["location"]) == (201, "/v1/instances/web-1")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"id": ID}, "/node"),
        ({"node": "node-1"}, "/id"),
        ({**IMPORT, "name": "Web"}, "/name"),
        ({**IMPORT, "image": "x"}, "/image"),
    ],
)
async def test_a_faulty_import_is_refused_with_its_place(
    client: ApiClient, body: dict[str, str], pointer: str
) -> None:
    response = await client.post("/v1/instances/import", json=body)
    assert response.status_code == 400
    assert pointer in {fault["pointer"] for fault in response.json()["errors"]}


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (grpc.StatusCode.NOT_FOUND, "ORPHAN_NOT_FOUND", 404),
        (grpc.StatusCode.FAILED_PRECONDITION, "MACHINE_ALREADY_MANAGED", 409),
        (grpc.StatusCode.FAILED_PRECONDITION, "ORPHAN_NOT_IMPORTABLE", 409),
        (grpc.StatusCode.ALREADY_EXISTS, "INSTANCE_ALREADY_EXISTS", 409),
    ],
)
async def test_what_the_controller_refuses_has_its_status(
    client: ApiClient, rest: Stand, code: grpc.StatusCode, reason: str, status: int
) -> None:
    rest.controller.answers["Import"] = RpcProblem(code, reason, "No.")
    response = await client.post("/v1/instances/import", json=IMPORT)
    assert (response.status_code, response.json()["reason"]) == (status, reason)


async def test_an_orphan_is_removed_by_its_node_and_id(client: ApiClient, rest: Stand) -> None:
    response = await client.delete(ORPHAN, params={"force": "true"})
    assert response.status_code == 202
    request = rest.controller.requests[-1]
    assert (request.node, request.id, request.force) == ("node-1", ID, True)
    assert request.options == instance_pb2.MutationOptions()


async def test_a_waited_removal_answers_nothing(client: ApiClient, rest: Stand) -> None:
    done = operation("discard", operation_pb2.OPERATION_STATE_SUCCEEDED)
    rest.controller.answers["WaitOperation"] = operation_pb2.WaitOperationResponse(operation=done)
    response = await client.delete(ORPHAN, headers={"Prefer": "wait=60"})
    assert (response.status_code, response.content) == (204, b"")


async def test_an_orphan_that_runs_is_a_conflict(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["DeleteOrphan"] = RpcProblem(
        grpc.StatusCode.FAILED_PRECONDITION, "ORPHAN_RUNNING", "It runs."
    )
    assert (await client.delete(ORPHAN)).status_code == 409
