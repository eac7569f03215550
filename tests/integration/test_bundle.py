"""The evidence of an operation, of a real machine: complete, true, and without the secret."""

import io
import json
import os
import signal
import tarfile
from typing import Any

from framework.cloud import Cloud, document
from framework.stack import eventually

CANARY = "canary-5b3e71"
USER_DATA = f"#cloud-config\nruncmd: [echo {CANARY}]\n"


def bundle(cloud: Cloud, operation_id: str) -> dict[str, bytes]:
    response = cloud.api.request("GET", f"/v1/operations/{operation_id}/bundle")
    assert response.status_code == 200, response.text
    assert f'filename="{operation_id}.tar.gz"' in response.headers["content-disposition"]
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member)
            assert content is not None
            files[member.name.partition("/")[2]] = content.read()
    return files


def operation_of(cloud: Cloud, name: str, kind: str) -> dict[str, Any]:
    response = cloud.api.request("GET", "/v1/operations", params={"instance": name})
    found: dict[str, Any] = next(item for item in document(response)["operations"] if item["kind"] == kind)
    return found


def test_a_bundle_tells_of_a_real_machine_what_there_is_to_tell(cloud: Cloud) -> None:
    instance = cloud.launch_ready(cloudInit={"userdata": USER_DATA})
    name, uuid = instance["name"], instance["id"]
    said = f"echo boom-{uuid} > /dev/console; echo {CANARY} > /dev/console"
    assert cloud.exec(name, "/bin/sh", "-c", said)["exitCode"] == 0
    operation = operation_of(cloud, name, "launch")
    files = bundle(cloud, operation["id"])
    assert uuid in json.loads(files["now/qemu-argv.json"])
    commands = [json.loads(line).get("command", {}) for line in files["now/qmp.jsonl"].splitlines()]
    assert "cont" in [command.get("execute") for command in commands]
    assert f"boom-{uuid}".encode() in files["now/console.log"]
    for service in ("controller.log.jsonl", "now/runner.log.jsonl"):
        lines = [json.loads(line) for line in files.get(service, b"").splitlines()]
        assert {line["traceId"] for line in lines} <= {operation["traceId"]}
    assert json.loads(files["node.json"])["name"] == "node-1"
    assert {check["name"] for check in json.loads(files["doctor.json"])} >= {"qemu", "disk"}
    assert [file for file, content in files.items() if CANARY.encode() in content] == []
    cloud.delete(name)


def test_the_end_of_a_killed_machine_is_in_its_bundle(cloud: Cloud) -> None:
    instance = cloud.launch(nics=[])
    name = instance["name"]
    (pid,) = cloud.stack.qemu_processes(instance["id"])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: cloud.get(name)["status"]["state"] == "FAILED", "it is seen to be lost")
    files = bundle(cloud, operation_of(cloud, name, "launch")["id"])
    seen = json.loads(files["now/instance.json"])
    assert (seen["status"]["state"], seen["status"]["reason"]) == ("FAILED", "QEMU_KILLED")
    assert "now/machine.json" in files
    cloud.delete(name)


def test_the_bundle_of_an_unknown_operation_is_a_404(cloud: Cloud) -> None:
    response = cloud.api.request("GET", "/v1/operations/op-none/bundle")
    assert (response.status_code, document(response)["reason"]) == (404, "OPERATION_NOT_FOUND")
