"""The same request twice, at once or after a lost answer, never makes two machines.

Counted are QEMU processes on the host, not what the API says of them.
"""

import json
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, Document, document
from framework.stack import Stack, eventually, running_stack

pytestmark = pytest.mark.native("connections are cut and services killed in a stack of its own")

AT_ONCE = 4
# A launch may be faster than the signal: then the moment was missed, and it is tried again.
ATTEMPTS = 5


@pytest.fixture(scope="module")
def victim() -> Iterator[Stack]:
    """A stack of this module's own, whose gateway may be killed."""
    guests.tiny()
    with running_stack("qc-twice-") as running:
        yield running


@pytest.fixture(scope="module")
def twice(victim: Stack) -> Iterator[Cloud]:
    """The breakable stack with the tiny image in it."""
    with BlockingApiClient(victim.base_url) as api:
        cloud = Cloud(victim, api)
        cloud.upload("tiny", guests.tiny())
        yield cloud


def spec(name: str) -> Document:
    return {"name": name, "image": "tiny", "vm": {"cpus": 1, "memory": "128M"}, "nics": [], "start": True}


def together(cloud: Cloud, path: str, body: Document, headers: dict[str, str]) -> list[httpx.Response]:
    """Send the same request from several connections, all of them at the same moment."""
    barrier = threading.Barrier(AT_ONCE)

    def send() -> httpx.Response:
        with BlockingApiClient(cloud.stack.base_url) as api:
            api.request("GET", "/healthz")
            barrier.wait()
            return api.request("POST", path, json=body, headers=headers)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [future.result() for future in [pool.submit(send) for _ in range(AT_ONCE)]]


def operations(cloud: Cloud, name: str, kind: str) -> list[Document]:
    response = cloud.api.request("GET", "/v1/operations", params={"instance": name})
    return [found for found in document(response)["operations"] if found["kind"] == kind]


def ended(cloud: Cloud, name: str, kind: str) -> Document:
    """Return the one operation of a kind when it has ended."""
    (operation,) = operations(cloud, name, kind)
    response = cloud.api.request("GET", f"/v1/operations/{operation['id']}", headers={"Prefer": "wait=120"})
    return document(response)


def all_qemus() -> int:
    """Return how many QEMU processes the host has, whoever's they are."""
    return sum(
        1
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (entry / "comm").exists() and _comm(entry).startswith("qemu-system")
    )


def _comm(entry: Path) -> str:
    try:
        return (entry / "comm").read_text()
    except OSError:
        return ""


def one_machine(cloud: Cloud, name: str) -> Document:
    """Return the instance, which runs in one process and was started once."""
    instance = cloud.get(name)
    assert instance["status"]["state"] == "RUNNING"
    assert len(cloud.stack.qemu_processes(instance["id"])) == 1
    machines = cloud.stack.layout.state / "runner" / "machines"
    assert [path.name for path in machines.iterdir()] == [instance["id"]]
    record = json.loads((machines / instance["id"] / "machine.json").read_text())
    assert _incarnation(record) == 1
    return instance


def _incarnation(record: Any) -> int:
    return int(record["incarnation"])


def cut_off(cloud: Cloud, body: Document, headers: dict[str, str]) -> None:
    """Send a whole request and hang up without reading a byte of the answer."""
    content = json.dumps(body).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    url = urlsplit(cloud.stack.base_url)
    assert url.hostname is not None
    with socket.create_connection((url.hostname, url.port or 80), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/instances HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n{head}\r\n".encode()
            + content
        )


def accepted(cloud: Cloud, name: str) -> None:
    eventually(
        lambda: cloud.api.request("GET", f"/v1/instances/{name}").status_code == 200, f"{name} is accepted"
    )


def test_identical_launches_at_once_without_a_key_make_one_machine(twice: Cloud) -> None:
    answers = together(twice, "/v1/instances", spec("at-once"), {})
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * (AT_ONCE - 1)
    reasons = {document(answer)["reason"] for answer in answers if answer.status_code == 409}
    assert reasons == {"INSTANCE_ALREADY_EXISTS"}
    assert ended(twice, "at-once", "launch")["state"] == "SUCCEEDED"
    one_machine(twice, "at-once")
    twice.delete("at-once")


def test_identical_launches_at_once_with_a_key_are_all_answered_with_one_operation(twice: Cloud) -> None:
    answers = together(twice, "/v1/instances", spec("keyed"), {"Idempotency-Key": "launch-keyed"})
    assert {answer.status_code for answer in answers} == {202}
    assert len({document(answer)["id"] for answer in answers}) == 1
    replayed = [answer.headers.get("idempotency-replayed") for answer in answers]
    assert replayed.count("true") == AT_ONCE - 1
    assert ended(twice, "keyed", "launch")["state"] == "SUCCEEDED"
    one_machine(twice, "keyed")
    twice.delete("keyed")


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "start-twice"}], ids=["no-key", "key"])
def test_identical_starts_at_once_make_one_process(twice: Cloud, key: dict[str, str]) -> None:
    name = twice.launch(f"starts{'-keyed' if key else ''}", start=False, nics=[])["name"]
    answers = together(twice, f"/v1/instances/{name}/start", {}, key)
    codes = {answer.status_code for answer in answers}
    assert codes <= ({202} if key else {200, 202, 409})
    started = {document(answer)["id"] for answer in answers if answer.status_code == 202}
    assert len(started) == 1
    assert ended(twice, name, "start")["state"] == "SUCCEEDED"
    one_machine(twice, name)
    twice.delete(name)


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "cut-off"}], ids=["no-key", "key"])
def test_a_retry_after_the_connection_was_cut_makes_no_second_machine(
    twice: Cloud, key: dict[str, str]
) -> None:
    name = f"cut-off{'-keyed' if key else ''}"
    body = spec(name)
    cut_off(twice, body, key)
    accepted(twice, name)
    retry = twice.api.request("POST", "/v1/instances", json=body, headers=key)
    if key:
        assert (retry.status_code, retry.headers["idempotency-replayed"]) == (202, "true")
    else:
        assert (retry.status_code, document(retry)["reason"]) == (409, "INSTANCE_ALREADY_EXISTS")
    assert ended(twice, name, "launch")["state"] == "SUCCEEDED"
    one_machine(twice, name)
    twice.delete(name)


def test_a_retry_after_the_gateway_died_with_the_answer_finds_the_operation(
    twice: Cloud, victim: Stack
) -> None:
    """The controller has accepted; the gateway waits for the launch and is killed before it answers."""
    for attempt in range(ATTEMPTS):
        name = f"lost-{attempt}"
        body, headers = spec(name), {"Idempotency-Key": name, "Prefer": "wait=60"}
        gateway = victim.process("gateway")
        with ThreadPoolExecutor(1) as pool:
            lost = _in_flight(pool, victim, body, headers)
            accepted(twice, name)
            assert gateway.signal(signal.SIGKILL)
            was_lost = isinstance(lost.exception(), httpx.TransportError)
        assert gateway.wait_gone(10)
        eventually(lambda: _answers(victim), "the gateway is back")
        with BlockingApiClient(victim.base_url) as api:
            retry = api.request("POST", "/v1/instances", json=body, headers=headers)
        assert (retry.status_code, retry.headers["idempotency-replayed"]) == (201, "true")
        assert len(operations(twice, name, "launch")) == 1
        one_machine(twice, name)
        twice.delete(name)
        if was_lost:
            return
    pytest.fail("each launch ended before its gateway could be killed")


def test_a_retry_after_the_gateway_died_before_the_controller_read_the_request_makes_one_machine(
    twice: Cloud, victim: Stack
) -> None:
    """The request lies in the socket of a controller that stands still: whether it counts is not known."""
    body, headers = spec("unread"), {"Idempotency-Key": "unread"}
    before = all_qemus()
    with ThreadPoolExecutor(1) as pool:
        controller = victim.process("controller")
        assert controller.signal(signal.SIGSTOP)
        try:
            lost = _in_flight(pool, victim, body, headers)
            eventually(lost.running, "the request is under way")
            victim.kill("gateway")
            with pytest.raises(httpx.TransportError):
                lost.result()
        finally:
            controller.signal(signal.SIGCONT)
    victim.wait_ready()
    with BlockingApiClient(victim.base_url) as api:
        retry = api.request("POST", "/v1/instances", json=body, headers=headers)
    assert retry.status_code == 202
    assert ended(twice, "unread", "launch")["state"] == "SUCCEEDED"
    one_machine(twice, "unread")
    assert all_qemus() - before == 1
    twice.delete("unread")


def _in_flight(
    pool: ThreadPoolExecutor, stack: Stack, body: Document, headers: dict[str, str]
) -> "Future[httpx.Response]":
    def send() -> httpx.Response:
        with BlockingApiClient(stack.base_url) as api:
            return api.request("POST", "/v1/instances", json=body, headers=headers)

    return pool.submit(send)


def _answers(stack: Stack) -> bool:
    try:
        with BlockingApiClient(stack.base_url) as api:
            return api.request("GET", "/healthz").status_code == 200
    except httpx.TransportError:
        return False
