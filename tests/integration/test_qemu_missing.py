"""A host without QEMU: launches are refused at once with what to do, and everything else works."""

from collections.abc import Iterator

import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, Document, document
from framework.stack import running_stack

MISSING = "/nonexistent/qemu-system-x86_64"
BODY: Document = {"name": "nowhere", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}


@pytest.fixture(scope="module")
def bare_cloud() -> Iterator[Cloud]:
    """A stack whose vm-host finds no QEMU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QC_VM_HOST_ALLOWED_PROGRAMS", f"{MISSING},passt")
        with running_stack("qc-bare-") as stack, BlockingApiClient(stack.base_url) as api:
            cloud = Cloud(stack, api)
            cloud.upload("tiny", guests.tiny())
            yield cloud


@pytest.mark.parametrize("query", ["", "?validateOnly=true"])
def test_a_launch_without_qemu_is_refused_and_leaves_nothing(bare_cloud: Cloud, query: str) -> None:
    response = bare_cloud.api.request("POST", f"/v1/instances{query}", json=BODY)
    assert response.status_code == 503, response.text
    problem = document(response)
    assert problem["reason"] == "QEMU_UNAVAILABLE"
    assert f"{MISSING} is not installed" in problem["detail"]
    assert int(response.headers["Retry-After"]) > 0
    assert bare_cloud.api.request("GET", "/v1/instances/nowhere").status_code == 404


def test_the_doctor_says_what_to_install(bare_cloud: Cloud) -> None:
    checks = document(bare_cloud.api.request("GET", "/v1/nodes/node-1/doctor"))["checks"]
    (qemu,) = [check for check in checks if check["name"] == "qemu"]
    assert qemu["status"] == "FAIL"
    assert "install" in qemu["fix"]
