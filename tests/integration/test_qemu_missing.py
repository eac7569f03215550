"""Without QEMU the stack runs and says what is missing; once it is installed, nothing needs a restart."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, document
from framework.stack import running_stack

pytestmark = pytest.mark.native("QEMU is a part of vm-host's image")

QEMU = "qemu-system-x86_64"
LAUNCH = {"name": "no-qemu", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "nics": []}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where vm-host of the next stack looks for QEMU; nothing is there."""
    with tempfile.TemporaryDirectory(prefix="qc-bin-", dir="/var/tmp") as folder:
        # QEMU's own uid must be able to find it.
        Path(folder).chmod(0o755)
        path = Path(folder, QEMU)
        monkeypatch.setenv("QC_VM_HOST_ALLOWED_PROGRAMS", f"{path},passt")
        yield path


@pytest.fixture
def bare_cloud(program: Path) -> Iterator[Cloud]:
    """A stack on a host without QEMU."""
    with running_stack("qc-bare-") as stack, BlockingApiClient(stack.base_url) as api:
        cloud = Cloud(stack, api)
        cloud.upload("tiny", guests.tiny())
        yield cloud


def test_a_launch_without_qemu_is_a_503_that_leaves_nothing_and_works_later(
    bare_cloud: Cloud, program: Path
) -> None:
    cloud = bare_cloud
    refused = cloud.api.request("POST", "/v1/instances", json={**LAUNCH, "start": True})
    assert (refused.status_code, document(refused)["reason"]) == (503, "QEMU_UNAVAILABLE"), refused.text
    assert int(refused.headers["Retry-After"]) > 0
    assert cloud.api.request("GET", "/v1/instances/no-qemu").status_code == 404
    assert document(cloud.api.request("GET", "/v1/operations"))["operations"] == []
    checks = document(cloud.api.request("GET", "/v1/nodes/node-1/doctor"))["checks"]
    (qemu,) = [check for check in checks if check["name"] == "qemu"]
    assert qemu["status"] == "FAIL"
    assert qemu["fix"]
    program.symlink_to(str(shutil.which(QEMU)))
    name = cloud.launch("no-qemu", nics=[])["name"]
    cloud.delete(name)
