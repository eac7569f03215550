"""What is wrong is refused with its reason and what to do, and nothing half-made stays."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from framework import guests
from framework.cloud import Cloud, document
from framework.stack import eventually

GOOD: dict[str, Any] = {"name": "bad-1", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}}


@pytest.fixture(autouse=True)
def _nothing_half_made(cloud: Cloud) -> Iterator[None]:
    instances = cloud.api.request("GET", "/v1/instances").json()["instances"]
    machines = set(cloud.stack.machines_dir.glob("*"))
    yield
    assert cloud.api.request("GET", "/v1/instances").json()["instances"] == instances
    assert set(cloud.stack.machines_dir.glob("*")) == machines
    # One that its client has broken off is removed when the store hears of it.
    eventually(lambda: not cloud.stack.pending_uploads() or None, "no upload is pending")


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"name": "../x"}, ["/name"]),
        ({"name": "Upper"}, ["/name"]),
        ({"name": "a" * 64}, ["/name"]),
        ({"vm": {"cpus": 0}}, ["/vm/cpus"]),
        ({"vm": {"memory": 0}}, ["/vm/memory"]),
        ({"vm": {"memory": "0G"}}, ["/vm/memory"]),
        ({"vm": {"memory": "12X"}}, ["/vm/memory"]),
        ({"vm": {"memory": "999999T"}}, ["/vm/memory"]),
        ({"vm": {"cpus": 100_000}}, ["/vm/cpus"]),
        ({"vm": {"disk": "1M"}}, ["/vm/disk"]),
        ({"colour": "red"}, ["/colour"]),
        ({"vm": {"sockets": 2}}, ["/vm/sockets"]),
        ({"ttl": "0s"}, ["/ttl"]),
        ({"expireTime": "2001-01-01T00:00:00Z"}, ["/expireTime"]),
        ({"ttl": "1h", "expireTime": "2100-01-01T00:00:00Z"}, ["/expireTime"]),
        ({"restartPolicy": "sometimes"}, ["/restartPolicy"]),
        ({"sshKeys": ["ssh-ed25519 AAAA"]}, ["/sshKeys/0"]),
        (
            {"name": "../x", "vm": {"cpus": 0, "memory": "x"}, "colour": 1},
            ["/colour", "/name", "/vm/cpus", "/vm/memory"],
        ),
        ({"nics": [{"network": "nowhere"}]}, ["/nics/0/network"]),
        ({"nics": [{"mac": "01:00:00:00:00:01"}]}, ["/nics/0/mac"]),
        ({"ports": [{"host": 0, "guest": 70_000}]}, ["/ports/0/guest", "/ports/0/host"]),
    ],
)
def test_faults_of_the_body_are_all_named(
    cloud: Cloud, change: dict[str, object], pointers: list[str]
) -> None:
    response = cloud.api.request("POST", "/v1/instances", json={**GOOD, **change})
    assert response.status_code == 400, response.text
    problem = document(response)
    assert problem["reason"] == "FIELD_INVALID"
    assert sorted({error["pointer"] for error in problem["errors"]}) == pointers


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"this is not JSON", "application/json", 400),
        (b"[1, 2]", "application/json", 400),
        (b'{"name": "a", "name": "b", "image": "tiny"}', "application/json", 400),
        (b"", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"name": "' + b"x" * 2_000_000 + b'"}', "application/json", 413),
    ],
)
def test_a_body_that_is_no_json_document_is_refused(
    cloud: Cloud, body: bytes, content_type: str, status: int
) -> None:
    response = cloud.api.request(
        "POST", "/v1/instances", content=body, headers={"Content-Type": content_type}
    )
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"].startswith("application/problem+json")


def test_an_unknown_image_is_a_404(cloud: Cloud) -> None:
    refused(post(cloud, {**GOOD, "image": "no-such"}), 404, "IMAGE_NOT_FOUND")


def test_a_bridge_that_is_not_there_is_refused_with_what_to_do(cloud: Cloud) -> None:
    body = {**GOOD, "nics": [{"network": "bridge:br-missing"}]}
    response = cloud.api.request("POST", "/v1/instances", json=body)
    assert (response.status_code, document(response)["reason"]) == (422, "NETWORK_UNAVAILABLE")
    assert "ip link add br-missing" in document(response)["detail"]


def test_another_digest_than_the_named_one_is_refused(cloud: Cloud) -> None:
    refused(post(cloud, {**GOOD, "imageDigest": "sha256:" + "0" * 64}), 422, "IMAGE_DIGEST_MISMATCH")


def test_more_than_the_host_has_is_a_503_with_retry_after(cloud: Cloud) -> None:
    response = post(cloud, {**GOOD, "vm": {"cpus": 1, "memory": "2T"}})
    refused(response, 503, "HOST_CAPACITY_EXHAUSTED")
    assert int(response.headers["Retry-After"]) > 0


def test_unknown_resources_and_paths_are_404_and_405_tells_the_methods(cloud: Cloud) -> None:
    for path, reason in (
        ("/v1/instances/none", "INSTANCE_NOT_FOUND"),
        ("/v1/images/none", "IMAGE_NOT_FOUND"),
        ("/v1/operations/op-none", "OPERATION_NOT_FOUND"),
        ("/v1/nodes/none", "NODE_NOT_FOUND"),
        ("/v1/nothing-here", "PATH_NOT_FOUND"),
    ):
        refused(cloud.api.request("GET", path), 404, reason)
    response = cloud.api.request("PUT", "/v1/instances")
    refused(response, 405, "METHOD_NOT_ALLOWED")
    assert set(response.headers["Allow"].replace(" ", "").split(",")) >= {"GET", "POST"}


def test_an_unknown_query_parameter_is_refused(cloud: Cloud) -> None:
    refused(cloud.api.request("GET", "/v1/instances", params={"colour": "red"}), 400, "FIELD_INVALID")


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"Host": "attacker.example"}, 421, "HOST_NOT_ALLOWED"),
        ({"Origin": "http://attacker.example"}, 403, "ORIGIN_NOT_ALLOWED"),
    ],
)
def test_a_foreign_web_page_cannot_drive_the_gateway(
    cloud: Cloud, headers: dict[str, str], status: int, reason: str
) -> None:
    refused(cloud.api.request("GET", "/v1/instances", headers=headers), status, reason)


def test_an_upload_that_is_no_image_leaves_nothing(cloud: Cloud) -> None:
    refused(put_image(cloud, b"just some text, no disk\n" * 1000), 422, "IMAGE_FORMAT_UNKNOWN")
    assert cloud.api.request("GET", "/v1/images/bad").status_code == 404


def test_a_qcow2_with_a_backing_file_is_unsafe(cloud: Cloud, tmp_path: Path) -> None:
    refused(
        put_image(cloud, qcow2(tmp_path, "-b", "/etc/passwd", "-F", "raw", "-u", size="1M")),
        422,
        "IMAGE_UNSAFE",
    )


def test_a_qcow2_with_a_data_file_is_unsafe(cloud: Cloud, tmp_path: Path) -> None:
    data = tmp_path / "data.raw"
    image = qcow2(tmp_path, "-o", f"data_file={data}", size="1M")
    problem = refused(put_image(cloud, image), 422, "IMAGE_UNSAFE")
    assert problem["metadata"]["rule"]


def test_a_truncated_upload_leaves_nothing(cloud: Cloud) -> None:
    """The client announces more than it sends and hangs up."""
    with socket.create_connection(("127.0.0.1", cloud.stack.layout.gateway_port)) as connection:
        connection.sendall(
            b"PUT /v1/images/cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n"
        )
        connection.sendall(guests.tiny().read_bytes()[:3_000_000])
    eventually(lambda: not cloud.stack.pending_uploads(), "nothing of the upload is left")
    assert cloud.api.request("GET", "/v1/images/cut").status_code == 404


def test_a_second_launch_of_a_name_is_refused_and_harms_nothing(cloud: Cloud) -> None:
    name = cloud.launch(start=False)["name"]
    refused(post(cloud, {**GOOD, "name": name}), 409, "INSTANCE_ALREADY_EXISTS")
    assert cloud.get(name)["status"]["state"] == "STOPPED"
    problem = refused(
        cloud.api.request("POST", f"/v1/instances/{name}/resume", json={}), 409, "INSTANCE_STATE_CONFLICT"
    )
    assert problem["metadata"]["state"] == "STOPPED"
    assert "start" in problem["metadata"]["allowed"]
    cloud.delete(name)


def test_an_image_in_use_is_not_deleted(cloud: Cloud) -> None:
    name = cloud.launch(start=False)["name"]
    problem = refused(cloud.api.request("DELETE", "/v1/images/tiny"), 409, "IMAGE_IN_USE")
    assert name in json.dumps(problem)
    cloud.delete(name)


def test_a_running_instance_is_deleted_only_by_force(cloud: Cloud) -> None:
    name = cloud.launch()["name"]
    refused(cloud.api.request("DELETE", f"/v1/instances/{name}"), 409, "INSTANCE_STATE_CONFLICT")
    cloud.delete(name, force=True)


def test_a_taken_port_is_refused_at_once(cloud: Cloud) -> None:
    port = cloud.stack.layout.gateway_port
    response = post(cloud, {**GOOD, "start": True, "ports": [{"host": port, "guest": 80}]})
    assert response.status_code in {400, 409, 503}, response.text
    assert str(port) in document(response)["detail"] + json.dumps(document(response).get("errors", ""))


def test_an_idempotency_key_is_bound_to_its_body(cloud: Cloud) -> None:
    key = {"Idempotency-Key": "once-1", "Prefer": "wait=30"}
    body = {**GOOD, "name": "once-1"}
    first = cloud.api.request("POST", "/v1/instances", json=body, headers=key)
    assert first.status_code == 201, first.text
    again = cloud.api.request("POST", "/v1/instances", json=body, headers=key)
    assert again.status_code == 201, again.text
    assert again.headers["Idempotency-Replayed"] == "true"
    other = cloud.api.request("POST", "/v1/instances", json={**body, "labels": {"x": "y"}}, headers=key)
    refused(other, 422, "IDEMPOTENCY_KEY_REUSED")
    cloud.delete("once-1")


def test_exec_tells_a_missing_program_and_a_missing_agent(cloud: Cloud) -> None:
    name = cloud.launch()["name"]
    cloud.verb(name, "stop", force=True)
    response = cloud.api.request("POST", f"/v1/instances/{name}/exec", json={"argv": ["/bin/true"]})
    assert response.status_code == 409
    cloud.verb(name, "start")
    cloud.wait_ready(name)
    response = cloud.api.request("POST", f"/v1/instances/{name}/exec", json={"argv": ["/no/such/program"]})
    refused(response, 422, "GUEST_PROGRAM_NOT_FOUND")
    response = cloud.api.request(
        "POST", f"/v1/instances/{name}/exec", json={"argv": ["/bin/sleep", "60"], "timeout": "1s"}
    )
    assert response.status_code == 504
    cloud.delete(name)


def post(cloud: Cloud, body: dict[str, object]) -> httpx.Response:
    """POST a launch that is expected to be refused."""
    return cloud.api.request("POST", "/v1/instances", json=body)


def put_image(cloud: Cloud, body: bytes) -> httpx.Response:
    """PUT `body` as the image "bad"."""
    return cloud.api.request(
        "PUT", "/v1/images/bad", content=body, headers={"Content-Type": "application/octet-stream"}
    )


def refused(response: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    """Assert that `response` is the problem `reason` and return it."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"].startswith("application/problem+json")
    problem = document(response)
    assert problem["reason"] == reason
    assert problem["status"] == status
    assert problem["detail"]
    return problem


def qcow2(folder: Path, *options: str, size: str) -> bytes:
    """Make a qcow2 image with qemu-img and return its bytes."""
    path = folder / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, size], check=True)
    return path.read_bytes()
