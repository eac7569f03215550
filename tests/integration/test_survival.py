"""Services die at chosen moments; no instance is lost, no operation is stuck, nothing leaks.

Each kill is SIGKILL by the host; what follows is judged from the guest (boot id), the host (processes, files)
and only then by the API's own word.
"""

import hashlib
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, Document, document
from framework.disks import raw_disk
from framework.stack import eventually, running_stack
from framework.subject import Subject
from framework.web import serving

FINAL = {"SUCCEEDED", "FAILED", "CANCELLED"}
# Where the controller dies: between a commit and the call that it announces, or between a call and the
# commit that says so (`controller.operations.failpoints` has all their names).
MOMENTS = [
    ("launch", "step.image.after_do"),
    ("launch", "step.machine.before_do"),
    ("launch", "step.machine.after_do"),
    ("launch", "step.power.before_do"),
    ("launch", "step.power.after_do"),
    ("launch", "settle.before_commit"),
    ("cancel", "undo.image.before"),
    ("stop", "step.power-off.before_do"),
    ("stop", "step.power-off.after_do"),
    ("restart", "step.power-off.after_do"),
    ("restart", "step.power.after_do"),
    ("delete", "step.machine.before_do"),
    ("delete", "step.machine.after_do"),
    ("delete", "settle.before_commit"),
]


@pytest.fixture(scope="module")
def moment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that names the moment at which the controller dies next."""
    return tmp_path_factory.mktemp("moment") / "name"


@pytest.fixture(scope="module")
def victim(request: pytest.FixtureRequest, in_containers: bool) -> Iterator[Subject]:
    """A stack that may be broken: natively one of this module's own, in containers the shared one."""
    if in_containers:
        yield request.getfixturevalue("stack")
        return
    moment: Path = request.getfixturevalue("moment")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QC_FAIL_POINT_FILE", str(moment))
        patch.setenv("QC_IMAGE_STORE_FETCH__ALLOW", "127.0.0.1")
        with running_stack("qc-kill-") as running:
            yield running


@pytest.fixture(scope="module")
def broken_cloud(victim: Subject) -> Iterator[Cloud]:
    """The breakable stack with the tiny image in it."""
    with BlockingApiClient(victim.base_url) as api:
        cloud = Cloud(victim, api)
        cloud.upload("tiny", guests.tiny())
        yield cloud


@pytest.mark.parametrize("service", ["gateway", "controller", "image-store", "qemu-runner"])
def test_a_running_guest_survives_the_death_of(broken_cloud: Cloud, service: str) -> None:
    cloud = broken_cloud
    name = cloud.launch_ready()["name"]
    boot_id = cloud.boot_id(name)
    cloud.stack.kill_and_wait_restarted(service)
    cloud.wait_ready(name)
    assert cloud.boot_id(name) == boot_id
    assert cloud.get(name)["status"]["state"] == "RUNNING"
    assert cloud.verb(name, "stop")["status"]["state"] == "STOPPED", "it is still manageable"
    assert cloud.verb(name, "start")["status"]["state"] == "RUNNING"
    cloud.delete(name)
    assert cloud.leaks() == []


@pytest.mark.native("the controller is told by a file of the test's where to die")
@pytest.mark.parametrize(("kind", "at"), MOMENTS)
def test_what_the_controller_had_begun_is_ended_though_it_died(
    broken_cloud: Cloud, moment: Path, kind: str, at: str
) -> None:
    cloud = broken_cloud
    name = f"{kind}-{at}".replace(".", "-").replace("_", "-")
    starts = cloud.stack.starts("controller")
    if kind in {"launch", "cancel"}:
        moment.write_text(at)
        body = {"name": name, "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}
        answer = cloud.api.request("POST", "/v1/instances", json=body, headers={"Idempotency-Key": name})
    else:
        cloud.launch(name)
        moment.write_text(at)
        answer = (
            cloud.api.request("DELETE", f"/v1/instances/{name}", params={"force": "true"})
            if kind == "delete"
            else cloud.api.request("POST", f"/v1/instances/{name}/{kind}", json={"timeout": "2s"})
        )
    assert answer.status_code == 202, answer.text
    operation = answer.headers["Location"]
    if kind == "cancel":
        # Held where the runner is asked: before, there is nothing to undo, and later nothing to cancel.
        with cloud.stack.frozen("qemu-runner"):
            eventually(lambda: "image" in entered_stages(cloud, operation), "the launch has its image")
            assert cloud.api.request("POST", f"{operation}/cancel").is_success
    eventually(lambda: cloud.stack.starts("controller") > starts, f"the controller has died at {at}")
    cloud.stack.wait_ready()
    assert not moment.exists()
    final = finished(cloud, operation)
    assert final["state"] == ("CANCELLED" if kind == "cancel" else "SUCCEEDED"), final
    if kind in {"cancel", "delete"}:
        assert cloud.api.request("GET", f"/v1/instances/{name}").status_code == 404
    else:
        instance = cloud.get(name)
        running = kind != "stop"
        assert instance["status"]["state"] == ("RUNNING" if running else "STOPPED")
        assert len(cloud.stack.qemu_processes(instance["id"])) == int(running)
        cloud.delete(name)
    assert cloud.leaks() == []
    assert document(cloud.api.request("GET", "/v1/images/tiny"))["usedBy"] == []


@pytest.mark.native("the services are told by a file of the test's where to die")
@pytest.mark.parametrize(
    ("service", "at"),
    [
        ("image-store", "fetch.begun"),
        ("image-store", "upload.published"),
        ("image-store", "upload.stored"),
        ("controller", "step.fetch.after_do"),
        ("controller", "undo.fetch.before"),
    ],
)
def test_an_import_is_ended_though_a_service_died(
    broken_cloud: Cloud, moment: Path, service: str, at: str
) -> None:
    cloud = broken_cloud
    content = b"".join(raw_disk(1))
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    starts = cloud.stack.starts(service)
    with serving() as web:
        web.files["/disk"] = content
        called_off = at.startswith("undo")
        web.held = {"/disk"} if called_off else set()
        moment.write_text(at)
        body = {"name": "imported", "url": web.url("/disk"), "digest": digest}
        answer = cloud.api.request("POST", "/v1/images/import", json=body)
        assert answer.status_code == 202, answer.text
        if called_off:
            assert web.begun.wait(60)
            cloud.api.request("POST", f"{answer.headers['Location']}/cancel")
        eventually(lambda: cloud.stack.starts(service) > starts, f"{service} has died at {at}")
        cloud.stack.wait_ready()
        final = finished(cloud, answer.headers["Location"])
    assert final["state"] == ("CANCELLED" if called_off else "SUCCEEDED"), final
    there = cloud.api.request("GET", "/v1/images/imported")
    assert there.status_code == (404 if called_off else 200)
    assert cloud.stack.pending_uploads() == []
    if not called_off:
        assert document(there)["digest"] == digest
        assert cloud.api.request("DELETE", "/v1/images/imported").status_code == 204


def entered_stages(cloud: Cloud, operation: str) -> set[str]:
    """Return the stages of `operation` that have begun."""
    stages = document(cloud.api.request("GET", operation))["stages"]
    return {stage["name"] for stage in stages if stage["state"] != "PENDING"}


@pytest.mark.parametrize("service", ["qemu-runner", "vm-host"])
def test_a_launch_whose_qemu_has_just_appeared_is_ended_after_the_death_of(
    broken_cloud: Cloud, service: str
) -> None:
    cloud = broken_cloud
    operation, instance = begin_launch(cloud, f"born-{service}")
    eventually(lambda: cloud.stack.qemu_processes(instance["id"]), "QEMU has appeared")
    cloud.stack.kill_and_wait_restarted(service)
    final = finished(cloud, operation)
    assert final["state"] == "SUCCEEDED", final
    if service == "vm-host":
        # Whether the launch had ended before its QEMU died is a matter of milliseconds.
        state = eventually(
            lambda: (
                state if (state := cloud.get(instance["name"])["status"]["state"]) != "STARTING" else None
            ),
            "the machine's fate is known",
        )
        if state == "FAILED":
            assert cloud.get(instance["name"])["status"]["reason"] == "VM_HOST_EXITED"
            cloud.verb(instance["name"], "start")
    cloud.wait_ready(instance["name"])
    assert len(cloud.stack.qemu_processes(instance["id"])) == 1
    cloud.delete(instance["name"])
    assert cloud.leaks() == []


def test_launches_cancelled_at_any_moment_leave_what_their_operation_says(broken_cloud: Cloud) -> None:
    cloud = broken_cloud
    moments = random.Random(3)
    for number in range(12):
        operation, instance = begin_launch(cloud, f"whim-{number}")
        stages = moments.randrange(4)
        eventually(
            lambda operation=operation, stages=stages: stages <= begun_stages(cloud, operation),  # type: ignore[misc]
            "it has come that far",
        )
        cloud.api.request("POST", f"{operation}/cancel")
        final = finished(cloud, operation)
        if final["state"] == "SUCCEEDED":
            cloud.delete(instance["name"])
        else:
            assert final["state"] == "CANCELLED", final
            assert cloud.api.request("GET", f"/v1/instances/{instance['name']}").status_code == 404
        assert cloud.stack.qemu_processes(instance["id"]) == []
        assert not cloud.stack.machine_dir(instance["id"]).exists()
    assert cloud.leaks() == []
    assert document(cloud.api.request("GET", "/v1/images/tiny"))["usedBy"] == []


def test_a_controller_that_is_asked_to_end_gives_its_work_to_the_next(broken_cloud: Cloud) -> None:
    cloud = broken_cloud
    operation, instance = begin_launch(cloud, "handed-over")
    process, starts = cloud.stack.process("controller"), cloud.stack.starts("controller")
    assert process.signal(signal.SIGTERM)
    assert process.wait_gone(30)
    eventually(lambda: cloud.stack.starts("controller") > starts, "the controller is started again")
    cloud.stack.wait_ready()
    assert finished(cloud, operation)["state"] == "SUCCEEDED"
    assert len(cloud.stack.qemu_processes(instance["id"])) == 1
    cloud.delete(instance["name"])


def test_a_guest_that_powers_itself_off_is_stopped_and_that_is_what_is_wanted(broken_cloud: Cloud) -> None:
    cloud = broken_cloud
    instance = cloud.launch_ready()
    name = instance["name"]
    cloud.exec(name, "/bin/sh", "-c", "(sleep 1; poweroff -f) >/dev/null 2>&1 &")
    stopped = eventually(
        lambda: found if (found := cloud.get(name))["status"]["state"] == "STOPPED" else None,
        "STOPPED is shown",
    )
    assert stopped["desiredPower"] == "STOPPED"
    assert stopped["status"]["reason"] == "GUEST_SHUTDOWN"
    assert cloud.stack.qemu_processes(instance["id"]) == []
    assert cloud.verb(name, "start")["status"]["state"] == "RUNNING"
    cloud.delete(name)


@pytest.mark.parametrize("service", ["controller", "qemu-runner", "image-store"])
def test_a_launch_is_finished_after_the_death_of(broken_cloud: Cloud, service: str) -> None:
    cloud = broken_cloud
    operation, instance = begin_launch(cloud, f"mid-{service}")
    cloud.stack.kill_and_wait_restarted(service)
    final = finished(cloud, operation)
    assert final["state"] == "SUCCEEDED", final
    cloud.wait_ready(instance["name"])
    assert len(cloud.stack.qemu_processes(instance["id"])) == 1
    cloud.delete(instance["name"])
    assert cloud.leaks() == []


@pytest.mark.parametrize("service", ["controller", "qemu-runner"])
def test_a_stop_is_finished_after_the_death_of(broken_cloud: Cloud, service: str) -> None:
    cloud = broken_cloud
    instance = cloud.launch_ready()
    response = cloud.api.request("POST", f"/v1/instances/{instance['name']}/stop", json={})
    assert response.status_code == 202
    cloud.stack.kill_and_wait_restarted(service)
    assert finished(cloud, response.headers["Location"])["state"] == "SUCCEEDED"
    assert cloud.get(instance["name"])["status"]["state"] == "STOPPED"
    assert cloud.stack.qemu_processes(instance["id"]) == []
    cloud.delete(instance["name"])


@pytest.mark.parametrize("service", ["controller", "qemu-runner", "image-store"])
def test_a_delete_rolls_forward_after_the_death_of(broken_cloud: Cloud, service: str) -> None:
    cloud = broken_cloud
    instance = cloud.launch()
    response = cloud.api.request("DELETE", f"/v1/instances/{instance['name']}", params={"force": "true"})
    assert response.status_code == 202
    cloud.stack.kill_and_wait_restarted(service)
    assert finished(cloud, response.headers["Location"])["state"] == "SUCCEEDED"
    assert cloud.api.request("GET", f"/v1/instances/{instance['name']}").status_code == 404
    assert not cloud.stack.machine_dir(instance["id"]).exists()
    assert cloud.stack.qemu_processes(instance["id"]) == []
    assert cloud.leaks() == []


def test_the_death_of_vm_host_fails_its_machines_which_can_be_started_again(broken_cloud: Cloud) -> None:
    cloud = broken_cloud
    instance = cloud.launch_ready()
    name = instance["name"]
    boot_id = cloud.boot_id(name)
    cloud.stack.kill_and_wait_restarted("vm-host")
    eventually(lambda: not cloud.stack.qemu_processes(instance["id"]), "QEMU has died with its parent")
    failed = eventually(
        lambda: found if (found := cloud.get(name))["status"]["state"] == "FAILED" else None,
        "FAILED is shown",
    )
    assert failed["status"]["reason"] == "VM_HOST_EXITED"
    assert failed["desiredPower"] == "RUNNING"
    assert cloud.verb(name, "start")["status"]["state"] == "RUNNING"
    cloud.wait_ready(name)
    assert cloud.boot_id(name) != boot_id
    cloud.delete(name)
    assert cloud.leaks() == []


def test_the_death_of_qemu_is_a_failure_with_its_reason(broken_cloud: Cloud) -> None:
    cloud = broken_cloud
    instance = cloud.launch_ready()
    name = instance["name"]
    (pid,) = cloud.stack.qemu_processes(instance["id"])
    os.kill(pid, signal.SIGKILL)
    failed = eventually(
        lambda: found if (found := cloud.get(name))["status"]["state"] == "FAILED" else None,
        "FAILED is shown",
    )
    assert failed["status"]["reason"] == "QEMU_KILLED"
    assert "SIGKILL" in failed["status"]["message"], "the message tells how QEMU ended"
    console = cloud.api.request("GET", f"/v1/instances/{name}/console").text
    assert failed["status"]["consoleTail"].strip()
    assert console.rstrip().endswith(failed["status"]["consoleTail"].rstrip()[-80:])
    assert cloud.verb(name, "start")["status"]["state"] == "RUNNING"
    cloud.delete(name)


def test_a_runner_that_is_away_never_makes_an_instance_failed(broken_cloud: Cloud) -> None:
    cloud = broken_cloud
    instance = cloud.launch_ready()
    name = instance["name"]
    with cloud.stack.frozen("qemu-runner"):
        unknown = eventually(
            lambda: found if condition(found := cloud.get(name), "MachineRunning") == "UNKNOWN" else None,
            "the condition MachineRunning is UNKNOWN",
        )
        assert unknown["status"]["state"] == "RUNNING"
        assert len(cloud.stack.qemu_processes(instance["id"])) == 1
    cloud.wait_ready(name)
    assert condition(cloud.get(name), "MachineRunning") == "TRUE"
    cloud.delete(name)


def test_two_launches_with_one_key_at_the_same_moment_make_one_machine(broken_cloud: Cloud) -> None:
    cloud = broken_cloud
    body = {"name": "twin-1", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}
    headers = {"Idempotency-Key": "twin", "Prefer": "wait=60"}

    def launch() -> tuple[int, str]:
        with BlockingApiClient(cloud.stack.base_url) as api:
            response = api.request("POST", "/v1/instances", json=body, headers=headers)
            return response.status_code, document(response)["id"]

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda _: launch(), range(8)))
    assert len(answers) == 1
    ((status, instance_id),) = answers
    assert status == 201
    assert len(cloud.stack.qemu_processes(instance_id)) == 1
    cloud.delete("twin-1")


def test_peers_that_are_down_are_named_and_no_operation_is_filed(broken_cloud: Cloud) -> None:
    cloud = broken_cloud
    body = {"name": "refused-1", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}
    for service, reason in (
        ("image-store", "IMAGE_STORE_UNAVAILABLE"),
        ("qemu-runner", "RUNNER_UNAVAILABLE"),
        ("vm-host", "VM_HOST_UNAVAILABLE"),
    ):
        before = launches(cloud)
        with cloud.stack.away(service):
            response = eventually(
                lambda: (
                    answer
                    if (answer := cloud.api.request("POST", "/v1/instances", json=body)).status_code == 503
                    else None
                ),
                f"{service} is known to be away",
            )
            assert document(response)["reason"] == reason, response.text
            assert int(response.headers["Retry-After"]) > 0
            assert cloud.api.request("GET", "/v1/instances/refused-1").status_code == 404
        cloud.stack.wait_ready()
        assert launches(cloud) == before


def launches(cloud: Cloud) -> list[Document]:
    """Return the launches that were ever filed."""
    operations = document(cloud.api.request("GET", "/v1/operations"))["operations"]
    return [operation for operation in operations if operation["kind"] == "launch"]


def begin_launch(cloud: Cloud, name: str) -> tuple[str, Document]:
    """File a launch and return its operation's path and the instance as it is then."""
    body = {"name": name, "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}
    response = cloud.api.request("POST", "/v1/instances", json=body)
    assert response.status_code == 202, response.text
    return response.headers["Location"], cloud.get(name)


def finished(cloud: Cloud, operation: str) -> Document:
    """Read the operation until it has ended."""
    return eventually(
        lambda: found if (found := document(cloud.api.request("GET", operation)))["state"] in FINAL else None,
        f"{operation} has ended",
        within_s=90,
    )


def begun_stages(cloud: Cloud, operation: str) -> int:
    """Return how many stages have begun; one that has ended has passed them all."""
    found = document(cloud.api.request("GET", operation))
    stages = found["stages"]
    begun = sum("startTime" in stage for stage in stages)
    return len(stages) if found["state"] in FINAL else begun


def condition(instance: Document, name: str) -> str:
    """Return the status of one condition."""
    return next(str(c["status"]) for c in instance["status"]["conditions"] if c["type"] == name)
