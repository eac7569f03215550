"""What guests and hosts do to machines, as the API tells it: proved from the guest, the host and the files.

Each test causes one observation with real QEMU, sees the state that it leads to, and takes the way out of it.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, Document
from framework.stack import Stack, eventually, running_stack

PANIC = "echo c > /proc/sysrq-trigger"
# Without the driver and without a reboot of its own, the kernel tells of its end on the console alone.
QUIET_PANIC = f"modprobe -r pvpanic-pci; echo 0 > /proc/sys/kernel/panic; {PANIC}"


@pytest.fixture(scope="module")
def victim() -> Iterator[Stack]:
    """A stack of this module's own, which may be broken."""
    with running_stack("qc-seen-") as running:
        yield running


@pytest.fixture(scope="module")
def broken_cloud(victim: Stack) -> Iterator[Cloud]:
    """The breakable stack with the tiny image in it."""
    with BlockingApiClient(victim.base_url) as api:
        cloud = Cloud(victim, api)
        cloud.upload("tiny", guests.tiny())
        yield cloud


def later(cloud: Cloud, name: str, script: str) -> None:
    """Have the guest do something once it has answered."""
    cloud.exec(name, "/bin/sh", "-c", f"(sleep 0.5; {script}) >/dev/null 2>&1 &")


def until_state(cloud: Cloud, name: str, state: str) -> Document:
    return eventually(
        lambda: found if (found := cloud.get(name))["status"]["state"] == state else None,
        f"{name} is {state}",
    )


def condition(instance: Document, kind: str) -> str:
    return next(str(one["status"]) for one in instance["status"]["conditions"] if one["type"] == kind)


def qemu(cloud: Cloud, instance: Document) -> int:
    (pid,) = cloud.stack.qemu_processes(instance["id"])
    return pid


def console(cloud: Cloud, instance: Document) -> str:
    log = cloud.stack.machine_dir(instance["id"]) / "console.log"
    return log.read_text(encoding="utf-8", errors="replace")


def starts_and_leaves(cloud: Cloud, name: str) -> None:
    """Take both ways out of FAILED: it runs again, and it goes without a trace."""
    running = cloud.verb(name, "start")
    assert running["status"]["state"] == "RUNNING"
    assert running["status"]["reason"] == ""
    assert "failureTime" not in running["status"]
    cloud.wait_ready(name)
    os.kill(qemu(cloud, running), signal.SIGKILL)
    until_state(cloud, name, "FAILED")
    cloud.delete(name, force=False)
    assert cloud.stack.qemu_processes(running["id"]) == []
    assert not cloud.stack.machine_dir(running["id"]).exists()
    assert cloud.leaks() == []


def test_a_guest_that_powers_itself_off_is_stopped(cloud: Cloud) -> None:
    instance = cloud.launch_ready()
    later(cloud, instance["name"], "poweroff -f")
    stopped = until_state(cloud, instance["name"], "STOPPED")
    assert (stopped["status"]["reason"], stopped["desiredPower"]) == ("GUEST_SHUTDOWN", "STOPPED")
    assert cloud.stack.qemu_processes(instance["id"]) == []
    cloud.delete(instance["name"])


def test_a_guest_that_reboots_runs_on_and_is_ready_again(cloud: Cloud) -> None:
    instance = cloud.launch_ready()
    name, pid = instance["name"], qemu(cloud, instance)
    assert instance["status"]["boots"] == 1
    boot_id = cloud.boot_id(name)
    later(cloud, name, "reboot -f")
    rebooted = eventually(
        lambda: found if (found := cloud.get(name))["status"]["boots"] == 2 else None, "the reboot is counted"
    )
    assert rebooted["status"]["state"] == "RUNNING"
    assert condition(rebooted, "Ready") == "FALSE"
    cloud.wait_ready(name)
    assert cloud.boot_id(name) != boot_id
    assert qemu(cloud, instance) == pid
    cloud.delete(name)


def test_a_qemu_that_is_killed_is_a_failure_with_its_signal_and_ways_out(cloud: Cloud) -> None:
    instance = cloud.launch_ready()
    os.kill(qemu(cloud, instance), signal.SIGKILL)
    failed = until_state(cloud, instance["name"], "FAILED")
    status = failed["status"]
    assert (status["reason"], status["exitSignal"]) == ("QEMU_KILLED", "SIGKILL")
    assert "SIGKILL" in status["message"]
    assert status["consoleTail"].strip()
    assert failed["desiredPower"] == "RUNNING"
    starts_and_leaves(cloud, instance["name"])


def test_a_guest_that_panics_is_a_failure_with_the_panic_on_its_console(cloud: Cloud) -> None:
    instance = cloud.launch_ready()
    later(cloud, instance["name"], PANIC)
    failed = until_state(cloud, instance["name"], "FAILED")
    assert failed["status"]["reason"] == "KERNEL_PANIC"
    assert failed["status"]["exitCode"] == 1
    assert "Kernel panic - not syncing" in failed["status"]["consoleTail"]
    assert failed["desiredPower"] == "RUNNING"
    assert cloud.stack.qemu_processes(instance["id"]) == []
    starts_and_leaves(cloud, instance["name"])


@pytest.mark.full
def test_a_panic_that_only_the_console_tells_is_one_too_and_leaves_no_process(cloud: Cloud) -> None:
    instance = cloud.launch_ready()
    later(cloud, instance["name"], QUIET_PANIC)
    failed = until_state(cloud, instance["name"], "FAILED")
    assert failed["status"]["reason"] == "KERNEL_PANIC"
    assert "end Kernel panic - not syncing" in failed["status"]["consoleTail"]
    eventually(lambda: not cloud.stack.qemu_processes(instance["id"]), "QEMU has been ended")
    starts_and_leaves(cloud, instance["name"])


@pytest.mark.full
def test_a_qemu_that_obeys_a_signal_is_no_guest_that_powered_off(cloud: Cloud) -> None:
    instance = cloud.launch_ready()
    os.kill(qemu(cloud, instance), signal.SIGTERM)
    failed = until_state(cloud, instance["name"], "FAILED")
    assert (failed["status"]["reason"], failed["status"]["exitSignal"]) == ("QEMU_KILLED", "SIGTERM")
    assert "terminating on signal 15" in failed["status"]["stderrTail"]
    starts_and_leaves(cloud, instance["name"])


@pytest.mark.full
def test_a_guest_whose_disk_is_full_is_held_and_goes_on_when_there_is_room(cloud: Cloud) -> None:
    instance = cloud.launch(start=False)
    name, directory = instance["name"], cloud.stack.machine_dir(instance["id"])
    with SmallDisk(directory, size_mib=16) as disk:
        cloud.verb(name, "start")
        cloud.wait_ready(name)
        boot_id = cloud.boot_id(name)
        later(cloud, name, "dd if=/dev/urandom of=/dev/vda bs=1M seek=100 count=60 oflag=direct")
        held = until_state(cloud, name, "PAUSED")
        assert held["status"]["reason"] == "IO_ERROR"
        assert "full" in held["status"]["message"]
        assert held["desiredPower"] == "RUNNING"
        disk.grow(size_mib=200)
        assert cloud.verb(name, "resume")["status"]["state"] == "RUNNING"
        assert cloud.boot_id(name) == boot_id
        assert cloud.verb(name, "stop", force=True)["status"]["state"] == "STOPPED"
    cloud.delete(name)


class SmallDisk:
    """A file system of its own with little room under a machine's overlay, and nothing else; needs root."""

    def __init__(self, machine: Path, size_mib: int) -> None:
        self._overlay = machine / "overlay.qcow2"
        self._aside = machine.parent.parent / f"{machine.name}.small"
        self._size_mib = size_mib

    def __enter__(self) -> Self:
        self._aside.mkdir()
        options = f"size={self._size_mib}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "qc-test", self._aside], check=True)
        subprocess.run(["cp", "-a", self._overlay, self._aside], check=True)
        subprocess.run(["mount", "--bind", self._aside / self._overlay.name, self._overlay], check=True)
        return self

    def grow(self, size_mib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size_mib}m", self._aside], check=True)

    def __exit__(self, *_: object) -> None:
        # Lazily: in a test that has failed QEMU may have it open.
        for mounted in (self._overlay, self._aside):
            subprocess.run(["umount", "--lazy", mounted], check=True)
        self._aside.rmdir()


@pytest.mark.full
@pytest.mark.native("vm-host, runner and controller are taken away from a stack of its own")
def test_a_vm_host_that_dies_or_stops_tells_the_one_from_the_other(broken_cloud: Cloud) -> None:
    cloud = broken_cloud
    instance = cloud.launch_ready()
    cloud.stack.kill_and_wait_restarted("vm-host")
    failed = until_state(cloud, instance["name"], "FAILED")
    assert failed["status"]["reason"] == "VM_HOST_EXITED"
    assert failed["status"]["consoleTail"].strip()
    cloud.verb(instance["name"], "start")
    cloud.wait_ready(instance["name"])
    process, starts = cloud.stack.process("vm-host"), cloud.stack.starts("vm-host")
    assert process.signal(signal.SIGTERM)
    stopped = until_state(cloud, instance["name"], "STOPPED")
    assert (stopped["status"]["reason"], stopped["desiredPower"]) == ("HOST_SHUTDOWN", "RUNNING")
    eventually(lambda: cloud.stack.starts("vm-host") > starts, "vm-host is started again")
    cloud.stack.wait_ready()
    cloud.delete(instance["name"])


@pytest.mark.full
@pytest.mark.native("vm-host, runner and controller are taken away from a stack of its own")
def test_what_became_of_machines_while_runner_and_controller_were_away_is_known_afterwards(
    broken_cloud: Cloud,
) -> None:
    cloud = broken_cloud
    paused, stopped, panicked, exited, running = (cloud.launch_ready() for _ in range(5))
    cloud.verb(paused["name"], "pause")
    cloud.verb(stopped["name"], "stop", force=True)
    boot_id = cloud.boot_id(running["name"])
    exited_pid = qemu(cloud, exited)
    later(cloud, panicked["name"], f"sleep 2; {QUIET_PANIC}")
    with cloud.stack.away("qemu-runner"):
        cloud.stack.kill("controller")
        os.kill(exited_pid, signal.SIGKILL)
        eventually(lambda: "end Kernel panic" in console(cloud, panicked), "the guest has panicked")
    cloud.stack.wait_ready()
    assert until_state(cloud, exited["name"], "FAILED")["status"]["reason"] == "QEMU_KILLED"
    assert until_state(cloud, panicked["name"], "FAILED")["status"]["reason"] == "KERNEL_PANIC"
    assert cloud.get(paused["name"])["status"]["state"] == "PAUSED"
    assert cloud.get(stopped["name"])["status"]["state"] == "STOPPED"
    cloud.wait_ready(running["name"])
    assert cloud.boot_id(running["name"]) == boot_id
    assert cloud.verb(paused["name"], "resume")["status"]["state"] == "RUNNING"
    for instance in (paused, stopped, panicked, exited, running):
        cloud.delete(instance["name"])
    assert cloud.leaks() == []
