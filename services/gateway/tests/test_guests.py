"""What is asked of a guest, over HTTP."""

import asyncio
import base64
import hashlib

import grpc
import pytest
from framework.api_client import ApiClient
from gateway_fakes import Stand
from qcontroller.controller.v1 import instance_pb2 as pb
from servicekit.rpc_errors import RpcProblem

GUEST = "/v1/instances/web-1/guest"


def no_agent() -> RpcProblem:
    return RpcProblem(grpc.StatusCode.FAILED_PRECONDITION, "GUEST_AGENT_UNAVAILABLE", "Nobody answers.")


async def test_a_guests_report_holds_what_it_told_and_nothing_else(wire: ApiClient) -> None:
    document = (await wire.get(GUEST)).json()
    assert document["timeZone"] == {"name": "CET", "offsetSeconds": 3600}
    assert document["filesystems"] == [
        {"mountpoint": "/", "device": "vda1", "type": "ext4", "totalBytes": 2**40, "usedBytes": 0},
        {"mountpoint": "/mnt", "device": "vdb", "type": "iso9660"},
    ]
    assert document["memory"] == {"source": "balloon", "totalBytes": 2**31}
    assert document["users"] == [{"name": "ada", "domain": "", "loginTime": "2026-01-01T00:00:00Z"}]


async def test_a_guest_without_agent_is_a_conflict(wire: ApiClient, rest: Stand) -> None:
    rest.controller.answers["GetGuest"] = no_agent()
    response = await wire.get(GUEST)
    assert (response.status_code, response.json()["reason"]) == (409, "GUEST_AGENT_UNAVAILABLE")


async def test_the_guest_of_no_instance_is_not_found(wire: ApiClient) -> None:
    assert (await wire.get("/v1/instances/absent/guest")).status_code == 404


FILES = "/v1/instances/web-1/files?path=/etc/a%20file"
CONTENT = bytes(range(256)) * 5000


async def test_a_file_is_pushed_with_its_wishes(wire: ApiClient, rest: Stand) -> None:
    digest = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    response = await wire.put(f"{FILES}&mode=0600&owner=root:adm&digest={digest}", content=CONTENT)
    assert response.status_code == 200
    assert response.json()["digest"] == digest
    push = rest.controller.last(pb.FilePush)
    assert (push.path, push.mode, push.owner, push.digest) == ("/etc/a file", "0600", "root:adm", digest)
    assert rest.controller.files == {"/etc/a file": CONTENT}


async def test_a_file_is_pulled_with_its_digest(wire: ApiClient, rest: Stand) -> None:
    rest.controller.files["/etc/a file"] = CONTENT
    response = await wire.get(FILES)
    assert response.content == CONTENT
    assert response.headers["content-length"] == str(len(CONTENT))
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    assert response.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert (response.headers["guest-file-mode"], response.headers["guest-file-owner"]) == (
        "0644",
        "root:root",
    )


async def test_an_empty_file_is_a_file(wire: ApiClient, rest: Stand) -> None:
    assert (await wire.put(FILES, content=b"")).json()["sizeBytes"] == 0
    assert (await wire.get(FILES)).content == b""


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("", "/query/path"), ("?path=/f&mode=rw", "/query/mode"), ("?path=/f&digest=md5:1", "/query/digest")],
)
async def test_faults_of_a_push_are_told(wire: ApiClient, query: str, pointer: str) -> None:
    response = await wire.put(f"/v1/instances/web-1/files{query}", content=b"x")
    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("reason", "code", "status"),
    [
        ("GUEST_FILE_REFUSED", grpc.StatusCode.FAILED_PRECONDITION, 409),
        ("GUEST_FILE_NOT_FOUND", grpc.StatusCode.NOT_FOUND, 404),
        ("GUEST_FILE_DIGEST_MISMATCH", grpc.StatusCode.INVALID_ARGUMENT, 422),
    ],
)
async def test_a_guests_refusal_is_a_problem_for_both_ways(
    wire: ApiClient, rest: Stand, reason: str, code: grpc.StatusCode, status: int
) -> None:
    problem = RpcProblem(code, reason, "The guest refuses '/f': Read-only file system")
    rest.controller.answers |= {"PushFile": problem, "PullFile": problem}
    for response in (await wire.put(FILES, content=b"x"), await wire.get(FILES)):
        assert (response.status_code, response.json()["reason"]) == (status, reason)


async def test_a_push_whose_client_goes_is_broken_off(wire: ApiClient, rest: Stand, port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"PUT {FILES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    writer.write(head.encode() + b"x" * 400_000)
    await writer.drain()
    writer.close()
    await asyncio.wait_for(rest.controller.pushes_ended.wait(), 10)
    assert rest.controller.files == {}


async def test_a_password_is_set_and_not_answered(wire: ApiClient, rest: Stand) -> None:
    body = {"user": "root", "password": "marker"}
    response = await wire.post(f"{GUEST}/password", json=body)
    assert (response.status_code, response.content) == (204, b"")
    assert rest.controller.last(pb.SetGuestPasswordRequest).password == "marker"
    refused = await wire.post(f"{GUEST}/password", json={"user": "", "password": "marker" * 500})
    assert refused.status_code == 400
    assert "marker" not in refused.text


async def test_keys_are_authorised(wire: ApiClient, rest: Stand) -> None:
    body = {"user": "root", "keys": ["ssh-ed25519 A"], "replace": True}
    assert (await wire.post(f"{GUEST}/ssh-keys", json=body)).status_code == 204
    request = rest.controller.last(pb.AuthoriseSshKeysRequest)
    assert (request.user, list(request.keys), request.replace) == ("root", ["ssh-ed25519 A"], True)


async def test_a_freeze_tells_its_end_and_a_thaw_what_it_thawed(wire: ApiClient, rest: Stand) -> None:
    assert (await wire.post(f"{GUEST}/freeze", json={"timeout": 5})).json() == {
        "filesystems": 2,
        "thawTime": "2026-01-01T00:00:00Z",
    }
    assert rest.controller.last(pb.FreezeGuestRequest).timeout == "5"
    assert (await wire.post(f"{GUEST}/freeze")).status_code == 200
    assert (await wire.post(f"{GUEST}/thaw")).json() == {"filesystems": 2}
