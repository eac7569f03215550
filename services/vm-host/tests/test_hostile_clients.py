"""Clients that misbehave cost nobody else anything."""

import contextlib
import json
import os
import socket
from pathlib import Path

import pytest
from vm_host_process import RawClient, RefusedAnswer, VmHostProcess, handle

GARBAGE = [b"\xff\xfe", b"[]", b"{}", b'{"id": true, "op": "list"}', b'{"id": 1}', b"[" * 60000, b'"\\ud800"']


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_answered_with_an_error(shared_vm_host: VmHostProcess, garbage: bytes) -> None:
    with shared_vm_host.client() as client:
        client.sock.send(garbage)
        with pytest.raises(RefusedAnswer, match="MESSAGE_INVALID"):
            client.answer()
        assert client.call("list")["children"] == []


def test_a_message_over_the_limit_is_refused(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client() as client, pytest.raises(RefusedAnswer, match="MESSAGE_TOO_LARGE"):
        client.spawn("true", "x" * 65536)


def test_the_first_request_must_be_hello(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client(hello=False) as client, pytest.raises(RefusedAnswer, match="HELLO_REQUIRED"):
        client.call("list")


def test_another_protocol_version_is_refused(shared_vm_host: VmHostProcess) -> None:
    with (
        shared_vm_host.client(hello=False) as client,
        pytest.raises(RefusedAnswer, match="VERSION_UNSUPPORTED"),
    ):
        client.call("hello", versions=[99])


BAD_SPAWNS: list[dict[str, object]] = [
    {"handle": {**handle(), "machineId": "../../etc"}},
    {"handle": {**handle(), "role": "sshd"}},
    {"handle": {**handle(), "incarnation": 0}},
    {"handle": {**handle(), "incarnation": True}},
    {"handle": None},
    {"argv": []},
    {"argv": ["true", 1]},
    {"argv": ["true", "a\0b"]},
    {"argv": ["true", "\ud800"]},
    {"env": {"LD_PRELOAD": "/x"}},
    {"cwd": "relative"},
    {"cwd": "/var/../etc"},
    {"fds": ["vmhost-qmp"]},
    {"fds": ["Not A Name"]},
    {"preexec": "x"},
    {"groups": [0]},
    {"uid": 4294967295, "gid": 1},
]


@pytest.mark.parametrize("fields", BAD_SPAWNS, ids=str)
def test_a_malformed_spawn_is_refused_and_starts_nothing(
    shared_vm_host: VmHostProcess, fields: dict[str, object]
) -> None:
    with shared_vm_host.client() as client:
        with pytest.raises(RefusedAnswer, match="FIELD_INVALID"):
            client.call("spawn", **{"handle": handle(), "argv": ["true"], "fds": [], **fields})
        assert client.call("list")["children"] == []


@pytest.mark.parametrize(("operation", "count"), [("spawn", 65), ("list", 1)])
def test_too_many_descriptors_are_refused_and_closed(
    shared_vm_host: VmHostProcess, operation: str, count: int
) -> None:
    with shared_vm_host.client() as client:
        directory = Path(f"/proc/{shared_vm_host.process.pid}/fd")
        before = len(list(directory.iterdir()))
        with pytest.raises(RefusedAnswer, match="TOO_MANY_DESCRIPTORS"):
            client.call(operation, [0] * count)
        assert len(list(directory.iterdir())) == before


def test_a_client_that_closes_half_is_let_go(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client() as client:
        client.sock.shutdown(socket.SHUT_WR)
        assert client.sock.recv(1) == b""


def test_a_client_that_never_reads_delays_nobody(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as deaf, vm_host.watcher() as client:
        deaf.sock.setblocking(False)
        request = json.dumps({"id": 1, "op": "hello", "versions": [1]}).encode()
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.sock.send(request)
        named = handle()
        client.spawn("true", handle=named)
        assert client.exit_of(named)["code"] == 0
        assert vm_host.stop() == 0


def test_a_client_over_the_limit_is_turned_away_and_the_others_served(vm_host: VmHostProcess) -> None:
    clients = [vm_host.client() for _ in range(64)]
    with RawClient(vm_host.socket_path, hello=False) as late:
        assert late.receive()["error"]["code"] == "TOO_MANY_CLIENTS"
        with pytest.raises(EOFError):
            late.receive()
    assert clients[63].call("list")["children"] == []
    clients.pop().sock.close()
    # Its place is free as soon as vm-host has seen the end, which it has when the next is answered.
    clients[0].call("list")
    with vm_host.client() as another:
        assert another.hello["version"] == 1
    for client in clients:
        client.sock.close()


def test_a_stuck_qemu_monitor_does_not_keep_vm_host_from_ending(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        named = handle()
        flood = "trap '' TERM; while :; do echo '[]'; done >&{fd:vmhost-qmp}"
        client.spawn("sh", "-c", flood, handle=named)
        assert vm_host.stop() == 0


def test_a_log_that_nobody_reads_does_not_block_vm_host(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client() as client:
        for _ in range(1000):  # lines of over 100 bytes into a pipe of 64 KiB
            with pytest.raises(RefusedAnswer):
                client.call("unheard-of" * 6)
        assert client.call("list")["children"] == []


def test_vm_host_survives_a_client_that_is_killed_in_mid_spawn(vm_host: VmHostProcess) -> None:
    reader, writer = os.pipe()
    client = vm_host.client()
    client.send("spawn", [writer], handle=handle(), argv=["sh", "-c", "echo up >&{fd:o}"], fds=["o"])
    client.sock.close()
    os.close(writer)
    with os.fdopen(reader) as file, vm_host.client() as other:
        file.read()
        assert other.call("list")["stopping"] is False
