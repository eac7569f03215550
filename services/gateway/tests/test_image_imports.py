"""Images from URLs over REST."""

from typing import Any

import grpc
import pytest
from framework.api_client import ApiClient
from gateway_fakes import DIGEST, Stand, operation
from qcontroller.controller.v1 import image_import_pb2, instance_pb2, operation_pb2
from servicekit.rpc_errors import RpcProblem, Violation

IMPORT = {"name": "debian-12", "url": "https://example.org/disk", "digest": DIGEST}


async def test_an_import_answers_the_operation(client: ApiClient, rest: Stand) -> None:
    body: dict[str, Any] = {**IMPORT, "arch": "aarch64", "labels": {"team": "web"}}
    response = await client.post("/v1/images/import", json=body, headers={"Idempotency-Key": "k"})
    assert (response.status_code, response.headers["location"]) == (202, "/v1/operations/op-1")
    assert rest.controller.requests[-1] == image_import_pb2.ImportImageRequest(
        **body, options=instance_pb2.MutationOptions(request_id="local:POST /v1/images/import:k")
    )


async def test_a_waited_import_answers_the_image(client: ApiClient, rest: Stand) -> None:
    rest.store.images["debian-12"] = b"disk"
    done = operation("import-image", operation_pb2.OPERATION_STATE_SUCCEEDED)
    rest.controller.answers["WaitOperation"] = operation_pb2.WaitOperationResponse(operation=done)
    response = await client.post("/v1/images/import", json=IMPORT, headers={"Prefer": "wait=60"})
    assert (response.status_code, response.headers["location"]) == (201, "/v1/images/debian-12")
    assert response.json()["name"] == "debian-12"
    assert response.headers["preference-applied"] == "wait=60"


async def test_an_import_of_what_is_there_answers_the_image(client: ApiClient, rest: Stand) -> None:
    rest.store.images["debian-12"] = b"disk"
    rest.controller.answers["ImportImage"] = image_import_pb2.ImportImageResponse(replayed=True)
    response = await client.post("/v1/images/import", json=IMPORT)
    assert (response.status_code, response.headers["etag"]) == (200, '"i7"')
    assert response.headers["idempotency-replayed"] == "true"


async def test_a_waited_import_that_fails_tells_why(client: ApiClient, rest: Stand) -> None:
    failed = operation("import-image", operation_pb2.OPERATION_STATE_FAILED)
    failed.error.reason = "IMAGE_SOURCE_UNAVAILABLE"
    rest.controller.answers["WaitOperation"] = operation_pb2.WaitOperationResponse(operation=failed)
    response = await client.post("/v1/images/import", json=IMPORT, headers={"Prefer": "wait=60"})
    assert (response.status_code, response.json()["reason"]) == (502, "IMAGE_SOURCE_UNAVAILABLE")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": "https://example.org/", "digest": DIGEST}, "/name"),
        ({"name": "x", "digest": DIGEST}, "/url"),
        ({"name": "x", "url": "https://example.org/"}, "/digest"),
        ({**IMPORT, "digest": "sha512:12"}, "/digest"),
        ({**IMPORT, "arch": "z80"}, "/arch"),
        ({**IMPORT, "labels": {"a": 1}}, "/labels/a"),
        ({**IMPORT, "checksum": "x"}, "/checksum"),
    ],
)
async def test_a_faulty_import_is_refused_with_its_place(
    client: ApiClient, body: dict[str, Any], pointer: str
) -> None:
    response = await client.post("/v1/images/import", json=body)
    assert response.status_code == 400
    assert pointer in {fault["pointer"] for fault in response.json()["errors"]}


async def test_a_fault_of_the_url_does_not_repeat_it(client: ApiClient) -> None:
    response = await client.post("/v1/images/import", json={**IMPORT, "url": "https://secret" * 1000})
    assert response.status_code == 400
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_SOURCE_FORBIDDEN", 422),
        (grpc.StatusCode.ABORTED, "OPERATION_IN_PROGRESS", 409),
        (grpc.StatusCode.UNAVAILABLE, "IMAGE_STORE_UNAVAILABLE", 503),
    ],
)
async def test_what_the_controller_refuses_has_its_status(
    client: ApiClient, rest: Stand, code: grpc.StatusCode, reason: str, status: int
) -> None:
    rest.controller.answers["ImportImage"] = RpcProblem(code, reason, "No.")
    response = await client.post("/v1/images/import", json=IMPORT)
    assert (response.status_code, response.json()["reason"]) == (status, reason)


async def test_faults_that_the_store_finds_point_into_the_body(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["ImportImage"] = RpcProblem(
        grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "No.", {}, (Violation("/url", "no"),)
    )
    response = await client.post("/v1/images/import", json=IMPORT)
    assert [fault["pointer"] for fault in response.json()["errors"]] == ["/url"]


async def test_an_image_may_be_called_import(client: ApiClient, rest: Stand) -> None:
    rest.store.images["import"] = b"disk"
    assert (await client.get("/v1/images/import")).json()["name"] == "import"


async def test_a_launch_takes_a_url(client: ApiClient, rest: Stand) -> None:
    url = "https://example.org/" + "a" * 300
    body = {"name": "web-1", "image": url, "imageDigest": DIGEST}
    assert (await client.post("/v1/instances", json=body)).status_code == 202
    request = rest.controller.requests[-1]
    assert (request.image, request.image_digest) == (url, DIGEST)
