"""An instance's life through the containers."""

import json
from pathlib import Path

import pytest
from framework.cloud import Cloud
from framework.containers import Containers, qemu_of

pytestmark = pytest.mark.compose


def test_launch_exec_stop_and_delete_leave_nothing(containers: Containers, cloud: Cloud) -> None:
    instance = cloud.launch_ready()
    (nic,) = instance["status"]["nics"]
    assert nic["addresses"][0]["address"].startswith("10.71.")
    name = instance["name"]
    assert qemu_of(instance["id"]) is not None
    assert cloud.exec(name, "/bin/uname")["stdout"].strip() == "Linux"
    stopped = cloud.verb(name, "stop")
    assert stopped["status"]["state"] == "STOPPED"
    assert qemu_of(instance["id"]) is None
    cloud.delete(name)
    machines = Path(f"/proc/{containers.pid('qemu-runner')}/root{containers.state_dir}/machines")
    assert machines.is_dir()
    assert not (machines / instance["id"]).exists()
    assert cloud.leaks() == []


def test_log_lines_are_json_with_the_trace_of_the_call(containers: Containers, cloud: Cloud) -> None:
    refused = cloud.api.request("GET", "/v1/instances/there-is-none")
    trace = refused.json()["traceId"]
    documents = [json.loads(line) for line in containers.log("controller")]
    assert trace in {document.get("traceId") for document in documents}
