"""What is wrong with a request is told completely, before anything is asked of the services."""

from typing import Any

import grpc
import pytest
from framework.api_client import ApiClient
from gateway_fakes import Stand, not_found
from qcontroller.controller.v1.instance_pb2 import ExecInstanceRequest
from servicekit.rpc_errors import RpcProblem, Violation

GOOD = {"name": "web-1", "image": "debian-12"}


async def pointers(client: ApiClient, body: Any) -> list[str]:
    response = await client.post("/v1/instances", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["reason"] == "FIELD_INVALID"
    return [fault["pointer"] for fault in response.json()["errors"]]


async def test_all_faults_are_listed(client: ApiClient) -> None:
    body = {"image": 1, "vm": {"cpus": 0, "memory": "2X"}, "ttl": "soon", "nics": [{"mac": "x"}]}
    assert await pointers(client, body) == [
        "/image", "/name", "/nics/0/mac", "/ttl", "/vm/cpus", "/vm/memory",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", "Web", "-a", "a-", "a.b", "../x", "a" * 64, "a_b", "ä", "a\n"])
async def test_a_name_that_is_no_dns_label_is_refused(client: ApiClient, name: str) -> None:
    assert await pointers(client, {**GOOD, "name": name}) == ["/name"]


@pytest.mark.parametrize(
    "memory", [0, -1, 1.5, True, "0", "2X", "2 G", "", "99999T", 10**9, None, [], "1.5G"]
)
async def test_an_absurd_size_is_refused(client: ApiClient, memory: Any) -> None:
    assert await pointers(client, {**GOOD, "vm": {"memory": memory}}) == ["/vm/memory"]


@pytest.mark.parametrize(
    ("extra", "pointer"),
    [
        ({"start": "yes"}, "/start"),
        ({"labels": {"a": 1}}, "/labels/a"),
        ({"labels": {"a/b": 1}}, "/labels/a~1b"),
        ({"ports": [{"host": 70000, "guest": 22}]}, "/ports/0/host"),
        ({"ports": [{"host": 1}]}, "/ports/0/guest"),
        ({"ports": [{"host": 1, "guest": 1, "address": "x"}]}, "/ports/0/address"),
        ({"ports": [{"host": 1, "guest": 1, "protocol": "sctp"}]}, "/ports/0/protocol"),
        ({"nics": [{"network": "wlan"}]}, "/nics/0/network"),
        ({"readiness": {"all": []}}, "/readiness/all"),
        ({"readiness": {"all": [{"icmp": {}}]}}, "/readiness/all/0/icmp"),
        ({"readiness": {"all": [{}]}}, "/readiness/all/0"),
        ({"readiness": {"all": [{"agent": {}, "tcp": {"port": 22}}]}}, "/readiness/all/0"),
        ({"readiness": {"all": [{"tcp": {}}]}}, "/readiness/all/0/tcp/port"),
        ({"readiness": {"all": [{"tcp": {"port": 70000}}]}}, "/readiness/all/0/tcp/port"),
        ({"readiness": {"all": [{"http": {"path": "x\r\ny"}}]}}, "/readiness/all/0/http/path"),
        ({"readiness": {"all": [{"cloudInit": "soon"}]}}, "/readiness/all/0/cloudInit"),
        ({"readiness": {"all": [{"serial": {"match": ""}}]}}, "/readiness/all/0/serial/match"),
        ({"readiness": {"all": [{"exec": {"argv": []}}]}}, "/readiness/all/0/exec/argv"),
        ({"readiness": {"deadline": "soon"}}, "/readiness/deadline"),
        ({"imageDigest": "sha256:x"}, "/imageDigest"),
        ({"arch": "riscv"}, "/arch"),
        ({"cloudInit": {"userData": ""}}, "/cloudInit/userData"),
        ({"cloudInit": {"userdataBase64": "a"}}, "/cloudInit/userdataBase64"),
        ({"cloudInit": {"userdataBase64": "AAAA\nAAAA"}}, "/cloudInit/userdataBase64"),
        ({"cloudInit": {"userdataBase64": "AA_-"}}, "/cloudInit/userdataBase64"),
        ({"cloudInit": {"userdataBase64": "ä"}}, "/cloudInit/userdataBase64"),
        ({"cloudInit": {"userdata": "x" * 524_289}}, "/cloudInit/userdata"),
        ({"cloudInit": {"networkConfig": "x" * 65_537}}, "/cloudInit/networkConfig"),
        ({"sshKeys": "ssh-ed25519 AAAA"}, "/sshKeys"),
        ({"sshKeys": [1]}, "/sshKeys/0"),
        ({"hostname": 1}, "/hostname"),
        ({"packages": [""]}, "/packages/0"),
        ({"packages": ["x"] * 257}, "/packages"),
    ],
)
async def test_a_wrong_field_is_pointed_at(client: ApiClient, extra: dict[str, Any], pointer: str) -> None:
    assert pointer in await pointers(client, {**GOOD, **extra})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"\xff",
        b'{"name": NaN}',
        b'{"name": "\\ud800"}',
        b"[" * 100_000,
        b"1" * 5000,
    ],
)
async def test_a_body_that_is_not_json_is_400(client: ApiClient, body: bytes) -> None:
    response = await client.post("/v1/instances", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["reason"]) == (400, "BODY_MALFORMED")


@pytest.mark.parametrize("body", ["[]", "null", "1", '"x"'])
async def test_a_body_that_is_no_object_is_400(client: ApiClient, body: str) -> None:
    response = await client.post("/v1/instances", content=body, headers={"Content-Type": "application/json"})
    assert response.json()["errors"] == [{"pointer": "", "detail": "must be an object"}]


async def test_a_doubled_key_is_pointed_at(client: ApiClient) -> None:
    response = await client.post(
        "/v1/instances",
        content=b'{"name":"a","image":"b","vm":{"cpus":1,"cpus":2}}',
        headers={"Content-Type": "application/json"},
    )
    assert response.json()["errors"] == [{"pointer": "/vm/cpus", "detail": "is given more than once"}]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("foo=1", "/query/foo"),
        ("pageSize=0", "/query/pageSize"),
        ("pageSize=x", "/query/pageSize"),
        ("pageSize=1&pageSize=2", "/query/pageSize"),
        ("state=BROKEN", "/query/state/0"),
        ("label=novalue", "/query/label/0"),
    ],
)
async def test_a_wrong_query_parameter_is_pointed_at(client: ApiClient, query: str, pointer: str) -> None:
    response = await client.get(f"/v1/instances?{query}")
    assert response.status_code == 400
    assert [fault["pointer"] for fault in response.json()["errors"]] == [pointer]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä"])
async def test_an_idempotency_key_that_is_none_is_400(client: ApiClient, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    response = await client.post("/v1/instances", json=GOOD, headers=headers)
    assert response.json()["errors"][0]["pointer"] == "/header/Idempotency-Key"


@pytest.mark.parametrize("header", ["Idempotency-Key", "If-Match"])
async def test_what_a_call_would_ignore_is_refused(client: ApiClient, rest: Stand, header: str) -> None:
    exec_url = "/v1/instances/web-1/exec"
    response = await client.post(exec_url, json={"argv": ["date"]}, headers={header: '"3-17"'})
    faults = response.json()["errors"]
    assert (response.status_code, [fault["pointer"] for fault in faults]) == (400, [f"/header/{header}"])
    assert not [asked for asked in rest.controller.requests if isinstance(asked, ExecInstanceRequest)]


async def test_a_byte_order_mark_is_no_fault(client: ApiClient) -> None:
    body = b'\xef\xbb\xbf{"name": "web-1", "image": "tiny"}'
    response = await client.post("/v1/instances", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 202


async def test_faults_that_a_service_finds_are_told_as_ours_are(client: ApiClient, rest: Stand) -> None:
    violations = (Violation("/labels/a=b", "is no key"), Violation("/ports", "are too many"))
    rest.controller.answers["Launch"] = RpcProblem(
        grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "said otherwise", {}, violations
    )
    problem = (await client.post("/v1/instances", json={"name": "a", "image": "b"})).json()
    assert problem["detail"] == "2 faults: /labels/a=b is no key; /ports are too many."


async def test_an_unknown_instance_goes_before_a_wrong_body(client: ApiClient) -> None:
    response = await client.patch("/v1/instances/absent", json={"foo": 1})
    assert response.status_code == 404


@pytest.mark.parametrize(("name", "tag", "status"), [("absent", "*", 404), ("web-1", '"2-9"', 412)])
async def test_instance_and_tag_go_before_a_body_that_is_not_json(
    client: ApiClient, name: str, tag: str, status: int
) -> None:
    headers = {"Content-Type": "application/json", "If-Match": tag}
    response = await client.patch(f"/v1/instances/{name}", content=b"{", headers=headers)
    assert response.status_code == status


async def test_a_stale_tag_goes_before_a_wrong_body(client: ApiClient) -> None:
    response = await client.patch("/v1/instances/web-1", json={"foo": 1}, headers={"If-Match": '"2-17"'})
    assert response.status_code == 412


async def test_a_fresh_tag_lets_a_wrong_body_be_told(client: ApiClient) -> None:
    response = await client.patch("/v1/instances/web-1", json={"foo": 1}, headers={"If-Match": '"3-1"'})
    assert response.status_code == 400


@pytest.mark.parametrize("timeout", ["601", "11m", "x", "-1"])
async def test_a_wait_beyond_the_limit_is_400(client: ApiClient, timeout: str) -> None:
    response = await client.get(f"/v1/instances/web-1/wait?timeout={timeout}")
    assert response.json()["errors"][0]["pointer"] == "/query/timeout"


async def test_nothing_is_asked_for_a_wrong_launch(client: ApiClient, rest: Stand) -> None:
    await client.post("/v1/instances", json={})
    assert rest.controller.requests == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/instances/web-1"),
        ("DELETE", "/v1/images/tiny"),
        ("POST", "/v1/instances/web-1/pause"),
        ("POST", "/v1/operations/op-1/cancel"),
    ],
)
async def test_a_body_that_would_be_ignored_is_refused(
    client: ApiClient, rest: Stand, method: str, path: str
) -> None:
    response = await client.request(method, path, json={"force": True})
    assert (response.status_code, response.json()["reason"]) == (400, "FIELD_INVALID")
    changes = [one for one in rest.controller.requests if not type(one).__name__.startswith("Get")]
    assert changes == []


async def test_an_empty_object_where_no_body_is_taken_says_nothing(client: ApiClient) -> None:
    assert (await client.request("DELETE", "/v1/instances/web-1", json={})).status_code == 202


@pytest.mark.parametrize("content", [b"{", b'{"foo": 1}'])
async def test_an_unknown_operation_goes_before_a_wrong_body(
    client: ApiClient, rest: Stand, content: bytes
) -> None:
    rest.controller.answers["GetOperation"] = not_found("op-none")
    response = await client.post(
        "/v1/operations/op-none/cancel", content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 404


async def test_a_known_operation_lets_a_wrong_body_be_told(client: ApiClient) -> None:
    assert (await client.post("/v1/operations/op-1/cancel", json={"foo": 1})).status_code == 400
