"""QEMU is upgraded by a second vm-host beside the first, and no guest is stopped for it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, document
from framework.stack import Stack, eventually, running_stack

pytestmark = pytest.mark.native("a second vm-host is started as a plain process")

OLD, NEW = "vm-host", "vm-host-b"
_END_WITHIN_S = 60


@contextmanager
def newer_vm_host(stack: Stack, folder: Path) -> Iterator[None]:
    """Run a vm-host of a higher number on the runner's second socket."""
    settings = json.loads(stack.layout.config_file("vm-host").read_text(encoding="utf-8"))
    settings |= {"socketPath": stack.layout.socket("runner-vm-host", NEW), "generation": "2"}
    file = folder / "vm-host-b.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "vm-host-b.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "vm_host", "--config", str(file)], stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(_END_WITHIN_S)


def vm_hosts(cloud: Cloud) -> dict[str, tuple[str, int]]:
    """Return state and number of machines of each vm-host that the node shows."""
    node = document(cloud.api.request("GET", "/v1/nodes/node-1"))
    return {found["name"]: (found["state"], found["machines"]) for found in node["vmHosts"]}


def machine_type(stack: Stack, instance_id: str) -> str:
    """Return the machine type that the instance's QEMU was started with."""
    (pid,) = stack.qemu_processes(instance_id)
    words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
    return words[words.index("-machine") + 1].split(",")[0]


def shows(cloud: Cloud, wanted: dict[str, tuple[str, int]]) -> None:
    """Wait until the node shows these vm-hosts."""
    eventually(lambda: vm_hosts(cloud) == wanted, f"the node shows {wanted}")


def test_a_newer_vm_host_takes_what_starts_and_no_guest_is_stopped(tmp_path: Path) -> None:
    with running_stack("qc-up-") as stack, BlockingApiClient(stack.base_url) as api:
        cloud = Cloud(stack, api)
        cloud.upload("tiny", guests.tiny())
        old = cloud.launch_ready("old")
        boot_id, hardware = cloud.boot_id("old"), machine_type(stack, old["id"])
        assert vm_hosts(cloud) == {OLD: ("READY", 1)}

        with newer_vm_host(stack, tmp_path):
            shows(cloud, {OLD: ("DRAINING", 1), NEW: ("READY", 0)})
            cloud.launch_ready("new")
            new_boot_id = cloud.boot_id("new")
            assert vm_hosts(cloud) == {OLD: ("DRAINING", 1), NEW: ("READY", 1)}
            assert cloud.boot_id("old") == boot_id, "what runs stays where it is"

            # A runner that begins anew finds the machines of both.
            stack.kill_and_wait_restarted("qemu-runner")
            shows(cloud, {OLD: ("DRAINING", 1), NEW: ("READY", 1)})
            assert (cloud.boot_id("old"), cloud.boot_id("new")) == (boot_id, new_boot_id)

            cloud.verb("old", "stop", force=True)
            cloud.verb("old", "start")
            cloud.wait_ready("old")
            moved_boot_id = cloud.boot_id("old")
            assert vm_hosts(cloud) == {OLD: ("DRAINING", 0), NEW: ("READY", 2)}
            assert machine_type(stack, old["id"]) == hardware

            # The end of the old one is nobody's end.
            stack.kill_and_wait_restarted("vm-host")
            assert (cloud.boot_id("old"), cloud.boot_id("new")) == (moved_boot_id, new_boot_id)
            for name in ("old", "new"):
                assert cloud.get(name)["status"]["state"] == "RUNNING"
                cloud.delete(name)
            assert cloud.leaks() == []
        shows(cloud, {OLD: ("READY", 0)})
