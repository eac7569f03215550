"""Everything that is not 2xx is a problem, the frameworks' own refusals included."""

from typing import Any

import grpc
import httpx
import pytest
from framework.api_client import ApiClient
from gateway.errors import Fault, RequestInvalidError
from gateway_fakes import Stand
from servicekit.rpc_errors import RpcProblem


def reason_of(response: httpx.Response) -> Any:
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["reason"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/instances/a/b/c", "/v1/swagger/nothing.js"])
async def test_an_unknown_path_is_a_problem(client: ApiClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, reason_of(response)) == (404, "PATH_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/instances", "GET, HEAD, POST"),
        ("POST", "/v1/instances/web-1", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/v1/instances/web-1/start", "POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("POST", "/v1/swagger/index.html", "GET, HEAD"),
        ("OPTIONS", "/v1/images/x", "DELETE, GET, HEAD, PUT"),
    ],
)
async def test_another_method_names_all_that_are_allowed(
    client: ApiClient, method: str, path: str, allowed: str
) -> None:
    response = await client.request(method, path)
    assert (response.status_code, reason_of(response)) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == allowed


async def test_an_accept_that_excludes_json_is_406(client: ApiClient) -> None:
    response = await client.get("/v1/instances", headers={"Accept": "text/html"})
    assert (response.status_code, reason_of(response)) == (406, "NOT_ACCEPTABLE")


async def test_a_body_of_another_type_is_415(client: ApiClient) -> None:
    response = await client.post("/v1/instances", data={"name": "web-1"})
    assert (response.status_code, reason_of(response)) == (415, "MEDIA_TYPE_UNSUPPORTED")


async def test_a_body_beyond_the_limit_is_413(client: ApiClient) -> None:
    response = await client.post("/v1/instances", json={"name": "a" * 1_100_000})
    assert (response.status_code, reason_of(response)) == (413, "BODY_TOO_LARGE")


async def test_a_chunked_body_beyond_the_limit_is_413(wire: ApiClient) -> None:
    async def endless() -> Any:
        for _ in range(200):
            yield b" " * 10_000

    response = await wire.post(
        "/v1/instances", content=endless(), headers={"Content-Type": "application/json"}
    )
    assert (response.status_code, reason_of(response)) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.2", "", "[::1"])
async def test_another_host_is_421(client: ApiClient, host: str) -> None:
    response = await client.get("/healthz", headers={"Host": host})
    assert (response.status_code, reason_of(response)) == (421, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST."])
async def test_loopback_names_are_hosts(client: ApiClient, host: str) -> None:
    assert (await client.get("/healthz", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("path", ["/v1/instances", "/v1/events", "/v1/swagger/index.html", "/openapi.yaml"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
async def test_another_origin_is_403(client: ApiClient, path: str, origin: str) -> None:
    response = await client.get(path, headers={"Origin": origin})
    assert (response.status_code, reason_of(response)) == (403, "ORIGIN_NOT_ALLOWED")


async def test_an_upload_of_another_origin_is_403_and_stores_nothing(client: ApiClient, rest: Stand) -> None:
    response = await client.put("/v1/images/x", content=b"QFI", headers={"Origin": "https://evil.example"})
    assert (response.status_code, rest.store.images) == (403, {})


async def test_a_refusal_of_the_controller_is_passed_on(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["Launch"] = RpcProblem(
        grpc.StatusCode.FAILED_PRECONDITION, "INSTANCE_STATE_CONFLICT", "No.", {"state": "STOPPED"}
    )
    response = await client.post("/v1/instances", json={"name": "a", "image": "b"})
    assert response.status_code == 409
    assert response.json()["metadata"] == {"state": "STOPPED"}


async def test_an_operation_in_progress_says_when_to_come_back(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["Start"] = RpcProblem(
        grpc.StatusCode.ABORTED, "OPERATION_IN_PROGRESS", "Busy.", {"operation": "/v1/operations/op-9"}
    )
    response = await client.post("/v1/instances/web-1/start")
    assert (response.status_code, response.headers["retry-after"]) == (409, "1")


async def test_an_unknown_reason_has_the_status_of_its_code(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["Start"] = RpcProblem(grpc.StatusCode.NOT_FOUND, "SOMETHING_NEW", "Gone.")
    response = await client.post("/v1/instances/web-1/start")
    assert (response.status_code, reason_of(response)) == (404, "SOMETHING_NEW")


async def test_an_unforeseen_error_tells_nothing(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["Start"] = ValueError("secret")
    response = await client.post("/v1/instances/web-1/start")
    assert (response.status_code, response.json()["detail"]) == (500, "Internal error.")
    assert "secret" not in response.text


async def test_a_problem_carries_the_trace_of_the_request(client: ApiClient) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    response = await client.get("/v1/instances/absent", headers=headers)
    assert response.json()["traceId"] == trace_id


async def test_a_peer_that_is_away_is_503_with_its_reason(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["List"] = RpcProblem(
        grpc.StatusCode.UNAVAILABLE, "RUNNER_UNAVAILABLE", "The runner is away."
    )
    response = await client.get("/v1/instances")
    assert (response.status_code, reason_of(response)) == (503, "RUNNER_UNAVAILABLE")
    assert "retry-after" in response.headers


async def test_answers_carry_security_headers(client: ApiClient) -> None:
    response = await client.get("/healthz")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "server" not in response.headers


def test_a_detail_ends_in_one_full_stop_whoever_found_the_fault() -> None:
    faults = [Fault("/ports/0", "cannot be had here."), Fault("/name", "is missing")]
    assert RequestInvalidError(faults).detail == "2 faults: /ports/0 cannot be had here; /name is missing."
