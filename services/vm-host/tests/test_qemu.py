"""The real QEMU and passt under vm-host."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vm_host_process import (
    DEADLINE_S,
    RawClient,
    RefusedAnswer,
    VmHostProcess,
    handle,
    identity,
    running_vm_host,
    wait_until_gone,
)

QEMU = "qemu-system-x86_64"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
ARGV = (
    *(QEMU, "-S", "-nodefaults", "-no-user-config", "-display", "none", "-M", "none", "-sandbox", SANDBOX),
    *("-chardev", "socket,id=own,fd={fd:vmhost-qmp}", "-mon", "chardev=own,mode=control"),
    *("-chardev", "socket,id=qmp,fd={fd:qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
)


@pytest.fixture
def qemu_host(state_dir: Path) -> Iterator[VmHostProcess]:
    with running_vm_host(state_dir, allowedPrograms=[QEMU, "passt"], stopGrace="60s") as host:
        yield host


def start_qemu(client: RawClient, directory: Path) -> tuple[dict[str, Any], int, socket.socket]:
    """Start QEMU with a listening socket of ours; return its handle, pid, and our QMP connection."""
    path = directory / "qmp.sock"
    named = handle()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        spawned = client.spawn(*ARGV, handle=named, fds={"qmp": listener.fileno()})
    qmp = socket.socket(socket.AF_UNIX)
    qmp.settimeout(DEADLINE_S)
    qmp.connect(str(path))
    return named, spawned["child"]["pid"], qmp


def qmp_answer(qmp: socket.socket, command: str) -> dict[str, Any]:
    lines = qmp.makefile("rb")
    qmp.sendall(json.dumps({"execute": command, "id": command}).encode())
    while True:
        message: dict[str, Any] = json.loads(lines.readline())
        if message.get("id") == command:
            return message


def test_qemu_answers_on_a_passed_listening_socket_without_any_capability(
    qemu_host: VmHostProcess, state_dir: Path
) -> None:
    with qemu_host.watcher() as client:
        named, pid, qmp = start_qemu(client, state_dir)
        with qmp:
            qmp_answer(qmp, "qmp_capabilities")
            assert qmp_answer(qmp, "query-status")["return"]["status"] == "prelaunch"
            status = Path(f"/proc/{pid}/status").read_text()
            expected = {"CapEff": 0, "CapBnd": 0} if os.getuid() == 0 else {"CapEff": 0}
            found = {name: int(value, 16) for name, value in re.findall(r"(Cap\w+):\t(\w+)", status)}
            assert {name: found[name] for name in expected} == expected
            assert "Seccomp:\t2" in status
            assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
            client.call("signal", handle=named, signal="KILL")
            client.exit_of(named)


def test_stopping_vm_host_ends_qemu_by_its_own_monitor(qemu_host: VmHostProcess, state_dir: Path) -> None:
    with qemu_host.watcher() as client:
        named, _pid, qmp = start_qemu(client, state_dir)
        with qmp:
            # Once it answers, its other monitor is served as well.
            qmp_answer(qmp, "qmp_capabilities")
            assert qemu_host.stop() == 0
        ended = client.exit_of(named)
        assert (ended["code"], ended["reason"]) == (0, "HOST_SHUTDOWN")


def test_killing_vm_host_ends_qemu(qemu_host: VmHostProcess, state_dir: Path) -> None:
    with qemu_host.watcher() as client:
        _named, pid, qmp = start_qemu(client, state_dir)
        with qmp:
            qmp_answer(qmp, "qmp_capabilities")
            pidfd = os.pidfd_open(pid)
            qemu_host.process.kill()
            try:
                assert wait_until_gone(pidfd)
            finally:
                os.close(pidfd)


def test_hello_offers_what_the_binary_says(qemu_host: VmHostProcess) -> None:
    with qemu_host.client() as client:
        (offer,) = client.hello["qemu"]
    said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    assert f"version {offer['version']} " in said.stdout
    assert offer["machineAliases"]["q35"] in offer["machineTypes"]
    assert [a["usable"] for a in offer["accelerators"] if a["name"] == "tcg"] == [True]
    assert offer["missingFirmware"] == []


def test_a_missing_qemu_is_told_in_hello_and_at_spawn(state_dir: Path) -> None:
    programs = ["/nowhere/qemu-system-x86_64"]
    with running_vm_host(state_dir, allowedPrograms=programs) as host, host.client() as client:
        (offer,) = client.hello["qemu"]
        assert "not installed" in offer["error"]
        with pytest.raises(RefusedAnswer, match="PROGRAM_UNAVAILABLE"):
            client.spawn(QEMU)


def test_passt_runs_confined_and_ends_with_its_peer(qemu_host: VmHostProcess) -> None:
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    named = handle(role="passt")
    network = ("-4", "--no-map-gw", "-a", "10.77.0.15", "-n", "24", "-g", "10.77.0.2")
    with qemu_host.watcher() as client:
        passt = ("passt", "-f", "-e", *network, "-t", "none", "-u", "none", "--fd", "{fd:net}")
        client.spawn(*passt, handle=named, fds={"net": far.fileno(), "stderr": writer}, **identity())
        far.close()
        os.close(writer)
        near.close()
        assert client.exit_of(named)["code"] == 0
    os.close(reader)
