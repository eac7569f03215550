"""Every verb on a running guest, seen from inside the guest and from the host."""

import httpx
import pytest
from framework.cloud import Cloud, document
from framework.stack import eventually


def test_pause_stops_the_guest_and_resume_lets_it_go_on(cloud: Cloud) -> None:
    name = cloud.launch_ready()["name"]
    boot_id = cloud.boot_id(name)
    assert cloud.verb(name, "pause")["status"]["state"] == "PAUSED"
    response = cloud.api.request("POST", f"/v1/instances/{name}/exec", json={"argv": ["/bin/true"]})
    assert response.status_code == 409
    assert document(response)["reason"] == "INSTANCE_STATE_CONFLICT"
    response = cloud.api.request("POST", f"/v1/instances/{name}/start", json={})
    assert response.status_code == 409
    assert "resume" in document(response)["metadata"]["allowed"]
    assert cloud.verb(name, "resume")["status"]["state"] == "RUNNING"
    assert cloud.boot_id(name) == boot_id
    cloud.delete(name)


@pytest.mark.parametrize("verb", ["restart", "reset"])
def test_restart_and_reset_boot_the_guest_anew(cloud: Cloud, verb: str) -> None:
    name = cloud.launch_ready()["name"]
    boot_id = cloud.boot_id(name)
    assert cloud.verb(name, verb)["status"]["state"] == "RUNNING"
    cloud.wait_ready(name)
    assert cloud.boot_id(name) != boot_id
    cloud.delete(name)


def test_what_already_holds_is_a_success_without_an_operation(cloud: Cloud) -> None:
    name = cloud.launch()["name"]
    before = operations_of(cloud, name)
    assert cloud.verb(name, "start")["status"]["state"] == "RUNNING"
    assert cloud.verb(name, "resume")["status"]["state"] == "RUNNING"
    assert operations_of(cloud, name) == before
    cloud.verb(name, "stop", force=True)
    before = operations_of(cloud, name)
    assert cloud.verb(name, "stop")["status"]["state"] == "STOPPED"
    assert operations_of(cloud, name) == before
    cloud.delete(name)


def test_a_stopped_instance_keeps_its_disk_over_stop_and_start(cloud: Cloud) -> None:
    """The tiny guest lives in its initramfs; what it writes to the raw disk beyond its partition stays."""
    name = cloud.launch_ready(vm={"cpus": 1, "memory": "256M", "disk": "512M"})["name"]
    write = "echo kept | dd of=/dev/vda bs=512 seek=900000 conv=sync,fsync 2>/dev/null"
    assert cloud.exec(name, "/bin/sh", "-c", write)["exitCode"] == 0
    cloud.verb(name, "stop")
    cloud.verb(name, "start")
    cloud.wait_ready(name)
    answer = cloud.exec(
        name, "/bin/sh", "-c", "dd if=/dev/vda bs=512 skip=900000 count=1 2>/dev/null | head -c 4"
    )
    assert answer["stdout"] == "kept"
    cloud.delete(name)


def test_patch_changes_labels_always_and_resources_when_stopped(cloud: Cloud) -> None:
    instance = cloud.launch(labels={"a": "1", "b": "2"})
    name = instance["name"]
    answer = patch(cloud, name, {"labels": {"a": "3", "b": None, "c": "4"}})
    assert answer.status_code == 200
    assert document(answer)["labels"] == {"a": "3", "c": "4"}
    refused = patch(cloud, name, {"vm": {"cpus": 2}})
    assert refused.status_code == 409
    assert document(refused)["reason"] == "INSTANCE_STATE_CONFLICT"
    cloud.verb(name, "stop", force=True)
    changed = document(patch(cloud, name, {"vm": {"cpus": 2, "memory": 384, "disk": "512M"}}))
    assert changed["vm"] == {"cpus": 2, "memory": 384, "disk": 512}
    shrunk = patch(cloud, name, {"vm": {"disk": "128M"}})
    assert shrunk.status_code == 400
    assert document(shrunk)["errors"][0]["pointer"] == "/vm/disk"
    cloud.verb(name, "start")
    cloud.wait_ready(name)
    assert cloud.exec(name, "/bin/grep", "-c", "^processor", "/proc/cpuinfo")["stdout"].strip() == "2"
    assert int(cloud.exec(name, "/bin/cat", "/sys/block/vda/size")["stdout"]) * 512 == 512 * 2**20
    cloud.delete(name)


def test_if_match_refuses_a_stale_generation_and_if_none_match_saves_the_body(cloud: Cloud) -> None:
    name = cloud.launch(start=False)["name"]
    etag = cloud.api.request("GET", f"/v1/instances/{name}").headers["ETag"]
    same = cloud.api.request("GET", f"/v1/instances/{name}", headers={"If-None-Match": etag})
    assert same.status_code == 304
    assert patch(cloud, name, {"labels": {"x": "1"}}, **{"If-Match": etag}).status_code == 200
    stale = patch(cloud, name, {"labels": {"x": "2"}}, **{"If-Match": etag})
    assert stale.status_code == 412
    assert document(stale)["reason"] == "PRECONDITION_FAILED"
    cloud.delete(name)


def test_a_launch_without_nics_has_no_network_card(cloud: Cloud) -> None:
    instance = cloud.launch_ready(nics=[])
    assert instance["status"]["nics"] == []
    links = cloud.exec(instance["name"], "/bin/ls", "/sys/class/net")["stdout"].split()
    assert links == ["lo"]
    cloud.delete(instance["name"])


def test_the_console_shows_what_the_guest_printed(cloud: Cloud) -> None:
    name = cloud.launch_ready()["name"]
    response = cloud.api.request("GET", f"/v1/instances/{name}/console")
    assert response.status_code == 200
    assert "Linux version" in response.text
    cloud.exec(name, "/bin/sh", "-c", "echo marker-from-the-guest > /dev/ttyS0")
    assert "marker-from-the-guest" in cloud.api.request("GET", f"/v1/instances/{name}/console").text
    cloud.delete(name)


def test_validate_only_tells_the_plan_and_changes_nothing(cloud: Cloud) -> None:
    spec = {"name": "only-a-plan", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}
    response = cloud.api.request("POST", "/v1/instances", json=spec, params={"validateOnly": "true"})
    assert response.status_code == 200, response.text
    plan = document(response)
    assert "-sandbox" in plan["qemuArgv"]
    assert plan["accelerator"] in {"kvm", "tcg"}
    assert cloud.api.request("GET", "/v1/instances/only-a-plan").status_code == 404


def test_wait_tells_what_failed_and_shows_the_console(cloud: Cloud) -> None:
    name = cloud.launch()["name"]
    cloud.verb(name, "pause")  # a guest that stands still never becomes ready
    response = cloud.api.request(
        "GET", f"/v1/instances/{name}/wait", params={"condition": "Ready", "timeout": "1s"}
    )
    assert response.status_code == 504, response.text
    problem = document(response)
    assert problem["reason"] == "READINESS_TIMEOUT"
    assert problem["metadata"]["condition"] == "Ready"
    assert "console" in problem["metadata"]
    cloud.verb(name, "stop", force=True)
    response = cloud.api.request(
        "GET", f"/v1/instances/{name}/wait", params={"condition": "Ready", "timeout": "30"}
    )
    assert response.status_code == 409, "a stopped instance cannot become ready: told at once"
    cloud.delete(name)


def test_forced_stop_supersedes_a_graceful_one_that_the_guest_ignores(cloud: Cloud) -> None:
    """A guest whose kernel has only begun to boot hears no power button for seconds."""
    name = cloud.launch(nics=[])["name"]
    slow = cloud.api.request("POST", f"/v1/instances/{name}/stop", json={"timeout": "5m"})
    assert slow.status_code == 202, slow.text
    second = cloud.api.request("POST", f"/v1/instances/{name}/restart", json={})
    assert second.status_code == 409, second.text
    assert document(second)["reason"] == "OPERATION_IN_PROGRESS"
    assert document(second)["metadata"]["operation"] == slow.headers["Location"]
    assert int(second.headers["Retry-After"]) > 0
    assert cloud.verb(name, "stop", force=True)["status"]["state"] == "STOPPED"
    ended = document(cloud.api.request("GET", slow.headers["Location"]))
    assert (ended["state"], ended["error"]["reason"]) == ("CANCELLED", "SUPERSEDED")
    assert ended["error"]["metadata"]["operation"].removeprefix("/v1/operations/").startswith("op-")
    cloud.delete(name)


def test_a_cancelled_launch_leaves_nothing(cloud: Cloud) -> None:
    spec = {"name": "cancelled-1", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}
    response = cloud.api.request("POST", "/v1/instances", json=spec)
    assert response.status_code == 202, response.text
    operation = response.headers["Location"]
    instance_id = document(cloud.api.request("GET", "/v1/instances/cancelled-1"))["id"]
    cancelled = cloud.api.request("POST", f"{operation}/cancel")
    if cancelled.status_code == 409:  # it was faster
        assert document(cancelled)["reason"] == "OPERATION_NOT_CANCELLABLE"
        cloud.delete("cancelled-1")
        return
    final = wait_finished(cloud, operation)
    assert final["state"] in {"CANCELLED", "SUCCEEDED"}
    if final["state"] == "CANCELLED":
        assert cloud.api.request("GET", "/v1/instances/cancelled-1").status_code == 404
        assert not cloud.stack.machine_dir(instance_id).exists()
        assert cloud.stack.qemu_processes(instance_id) == []
    else:
        cloud.delete("cancelled-1")


def wait_finished(cloud: Cloud, operation: str) -> dict[str, object]:
    """Read the operation until it has ended."""
    return eventually(
        lambda: (
            found
            if (found := document(cloud.api.request("GET", operation)))["state"]
            in {"SUCCEEDED", "FAILED", "CANCELLED"}
            else None
        ),
        f"{operation} has ended",
    )


def operations_of(cloud: Cloud, name: str) -> list[str]:
    """Return the ids of all operations on `name`."""
    body = document(cloud.api.request("GET", "/v1/operations", params={"instance": name}))
    return [operation["id"] for operation in body["operations"]]


def patch(cloud: Cloud, name: str, body: dict[str, object], **headers: str) -> httpx.Response:
    """PATCH the instance and wait for the result."""
    return cloud.api.request(
        "PATCH",
        f"/v1/instances/{name}",
        json=body,
        headers={"Content-Type": "application/merge-patch+json", "Prefer": "wait=30", **headers},
    )
