"""The end of vm-host: in good order, and not."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from vm_host_process import (
    PROGRAMS,
    RawClient,
    RefusedAnswer,
    VmHostProcess,
    handle,
    running_vm_host,
    wait_until_gone,
)


def spawn_fake_qemu(client: RawClient, run_state: str, presses: int) -> tuple[dict[str, Any], int]:
    """Start a fake QEMU; return its handle and a descriptor that tells what it was asked."""
    named = handle()
    reader, writer = os.pipe()
    arguments = ("{fd:vmhost-qmp}", run_state, str(presses))
    client.spawn("qemu-system-fake", *arguments, handle=named, fds={"stderr": writer})
    os.close(writer)
    return named, reader


def asked(reader: int) -> list[str]:
    with os.fdopen(reader) as file:
        return file.read().split()


def events_until_the_end(client: RawClient) -> list[dict[str, Any]]:
    events = []
    try:
        while True:
            events.append(client.event())
    except EOFError:
        return events


def test_a_guest_is_asked_to_power_down(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        named, reader = spawn_fake_qemu(client, "running", presses=1)
        assert vm_host.stop() == 0
        stopping, ended = events_until_the_end(client)
        assert stopping == {"event": "stopping", "startId": client.hello["startId"]}
        assert ended["child"]["handle"] == named
        assert (ended["child"]["exit"]["code"], ended["child"]["exit"]["reason"]) == (0, "HOST_SHUTDOWN")
        assert asked(reader) == ["qmp_capabilities", "query-status", "system_powerdown"]


def test_a_guest_that_missed_the_button_is_asked_again(state_dir: Path, fake_qemu: Path) -> None:
    settings = {"allowedPrograms": [str(fake_qemu)], "stopGrace": "60s"}
    with running_vm_host(state_dir, **settings) as host, host.watcher() as client:
        _named, reader = spawn_fake_qemu(client, "running", presses=2)
        assert host.stop() == 0
        assert asked(reader).count("system_powerdown") == 2


def test_a_paused_guest_is_resumed_so_that_it_can_power_down(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        _named, reader = spawn_fake_qemu(client, "paused", presses=1)
        assert vm_host.stop() == 0
        assert asked(reader)[-2:] == ["cont", "system_powerdown"]


def test_a_guest_that_is_not_running_is_ended_at_once(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        _named, reader = spawn_fake_qemu(client, "prelaunch", presses=1)
        assert vm_host.stop() == 0
        assert asked(reader)[-1] == "quit"


def test_a_guest_that_does_not_obey_is_ended_after_the_grace(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        named, reader = spawn_fake_qemu(client, "running", presses=0)
        assert vm_host.stop() == 0
        ended = events_until_the_end(client)[-1]
        assert (ended["child"]["handle"], ended["child"]["exit"]["code"]) == (named, 3)
        assert asked(reader)[-1] == "quit"


def test_nothing_is_spawned_while_stopping(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        spawn_fake_qemu(client, "running", presses=0)
        vm_host.process.send_signal(signal.SIGTERM)
        assert client.event()["event"] == "stopping"
        with pytest.raises(RefusedAnswer, match="STOPPING"):
            client.spawn("true")
        with vm_host.client() as late:
            assert late.hello["stopping"]


def test_exits_that_nobody_saw_are_told_by_the_next_vm_host(state_dir: Path) -> None:
    named = handle()
    record = state_dir / "vm-host.sock.stopped"
    with running_vm_host(state_dir) as host, host.client() as client:
        client.spawn("sleep", "1000", handle=named)
        first = client.hello["startId"]
    assert json.loads(record.read_text())["startId"] == first
    with running_vm_host(state_dir) as host, host.watcher() as client:
        assert client.hello["startId"] != first
        assert client.exit_of(named)["reason"] == "HOST_SHUTDOWN"
        client.call("ack", handle=named)
        assert not record.exists()


def test_an_unreadable_stop_record_does_not_keep_vm_host_from_starting(state_dir: Path) -> None:
    (state_dir / "vm-host.sock.stopped").write_text('{"children": [{"handle": 1}]}')
    with running_vm_host(state_dir) as host, host.client() as client:
        assert client.call("list")["children"] == []


def test_killing_vm_host_leaves_no_child(vm_host: VmHostProcess) -> None:
    with vm_host.client() as client:
        pids = [client.spawn("sleep", "1000")["child"]["pid"] for _ in range(3)]
        pidfds = [os.pidfd_open(pid) for pid in pids]
        vm_host.process.kill()
        try:
            assert all(wait_until_gone(pidfd) for pidfd in pidfds)
        finally:
            for pidfd in pidfds:
                os.close(pidfd)


def test_children_outlive_the_client_that_started_them(vm_host: VmHostProcess) -> None:
    named = handle()
    with vm_host.client() as client:
        pid = client.spawn("sleep", "1000", handle=named)["child"]["pid"]
    with vm_host.client() as client:
        (child,) = client.call("list")["children"]
        assert (child["pid"], "exit" in child) == (pid, False)


def test_a_second_vm_host_does_not_steal_the_socket(vm_host: VmHostProcess, state_dir: Path) -> None:
    second = VmHostProcess(state_dir)
    _out, err = second.process.communicate(timeout=20)
    assert second.process.returncode == 1
    assert "another vm-host serves this socket" in err
    with vm_host.client() as client:
        assert client.hello["pid"] == vm_host.process.pid


def test_a_stale_socket_is_replaced(state_dir: Path) -> None:
    with running_vm_host(state_dir) as host:
        host.stop(signal.SIGKILL)
        assert host.socket_path.exists()
    with running_vm_host(state_dir) as host, host.client() as client:
        assert client.hello["pid"] == host.process.pid


def test_the_socket_is_for_owner_and_group_and_goes_with_vm_host(vm_host: VmHostProcess) -> None:
    assert vm_host.socket_path.stat().st_mode & 0o777 == 0o660
    vm_host.stop()
    assert not vm_host.socket_path.exists()


def test_a_terminals_interrupt_reaches_vm_host_alone(state_dir: Path) -> None:
    with running_vm_host(state_dir, allowedPrograms=list(PROGRAMS)) as host, host.client() as client:
        pid = client.spawn("sleep", "1000")["child"]["pid"]
        assert os.getsid(pid) == pid != os.getsid(host.process.pid)


def test_log_lines_are_json_with_the_handle(vm_host: VmHostProcess) -> None:
    named = handle()
    with vm_host.watcher() as client:
        client.spawn("true", handle=named)
        client.exit_of(named)
    vm_host.stop()
    (line,) = [line for line in vm_host.log if line["event"] == "child ended"]
    assert {key: line[key] for key in named} == named
    assert re.fullmatch(r"\d{4}-.*\+00:00", line["time"])
