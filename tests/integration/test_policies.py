"""Policies on real machines: what is restarted, ended and taken away, as the host and the guest show it."""

import os
import signal
from collections.abc import Iterator

import httpx
import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, Document, document
from framework.stack import Stack, eventually, running_stack

_LONG_S = 180.0


@pytest.fixture(scope="module")
def hasty() -> Iterator[Stack]:
    """A stack that deletes soon after a lease was lost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QC_CONTROLLER_POLICIES__LEASE_DELETE_AFTER", "2s")
        patch.setenv("QC_CONTROLLER_STOP_TIMEOUT", "2s")
        with running_stack("qc-policies-") as running:
            yield running


@pytest.fixture(scope="module")
def hasty_cloud(hasty: Stack) -> Iterator[Cloud]:
    """The same with the tiny image in it."""
    with BlockingApiClient(hasty.base_url) as api:
        cloud = Cloud(hasty, api)
        cloud.upload("tiny", guests.tiny())
        yield cloud


def lease(cloud: Cloud, name: str) -> httpx.Response:
    return cloud.api.request("POST", f"/v1/instances/{name}/lease")


def patch(cloud: Cloud, name: str, **change: object) -> Document:
    response = cloud.api.request("PATCH", f"/v1/instances/{name}", json=change, headers={"Prefer": "wait=60"})
    assert response.status_code == 200, response.text
    return document(response)


def is_gone(cloud: Cloud, instance: Document) -> bool:
    """Whether neither the API nor the host knows the instance any more."""
    known = cloud.api.request("GET", f"/v1/instances/{instance['name']}").status_code != 404
    files = cloud.stack.machine_dir(instance["id"]).exists()
    return not (known or files or cloud.stack.qemu_processes(instance["id"]))


def test_a_machine_whose_qemu_is_killed_is_started_again(cloud: Cloud) -> None:
    instance = cloud.launch(restartPolicy="on-failure")
    (pid,) = cloud.stack.qemu_processes(instance["id"])
    os.kill(pid, signal.SIGKILL)

    def again() -> bool:
        now = cloud.get(instance["name"])["status"]
        return (now["state"], now["restartCount"]) == ("RUNNING", 1)

    eventually(again, "it runs again", _LONG_S)
    (after,) = cloud.stack.qemu_processes(instance["id"])
    assert after != pid
    listed = cloud.api.request("GET", "/v1/operations", params={"instance": instance["name"]})
    newest = document(listed)["operations"][0]
    assert (newest["kind"], newest["initiator"]) == ("start", "system")
    # What a user stops stays stopped.
    cloud.verb(instance["name"], "stop", force=True)
    assert cloud.get(instance["name"])["status"]["restartCount"] == 0
    cloud.delete(instance["name"])


def test_a_protected_instance_outlives_deletions(cloud: Cloud) -> None:
    instance = cloud.launch(start=False, protected=True)
    for force in ("false", "true"):
        response = cloud.api.request("DELETE", f"/v1/instances/{instance['name']}", params={"force": force})
        assert response.status_code == 409
        assert document(response)["reason"] == "INSTANCE_PROTECTED"
    assert cloud.stack.machine_dir(instance["id"]).exists()
    assert patch(cloud, instance["name"], protected=None)["protected"] is False
    cloud.delete(instance["name"])


@pytest.mark.native("its stack has settings of its own: short times")
def test_nothing_is_left_when_nobody_renews_the_lease(hasty_cloud: Cloud) -> None:
    cloud = hasty_cloud
    instance = cloud.launch(lease="5s")
    assert lease(cloud, instance["name"]).status_code == 200
    eventually(lambda: is_gone(cloud, instance), "it is gone", _LONG_S)
    assert cloud.leaks() == []
    assert document(cloud.api.request("GET", "/v1/images/tiny"))["usedBy"] == []
    assert lease(cloud, instance["name"]).status_code == 404


@pytest.mark.full
@pytest.mark.native("its stack has settings of its own: short times")
def test_a_connection_that_is_held_keeps_the_instance_and_its_end_takes_it_away(hasty_cloud: Cloud) -> None:
    cloud = hasty_cloud
    instance = cloud.launch(lease="6s")
    with cloud.api.stream("GET", f"/v1/instances/{instance['name']}/lease") as held:
        assert held.status_code == 200
        renewals = 0
        for line in held.iter_lines():
            renewals += line == "event: lease"
            if renewals == 8:  # Two seconds apart: beyond twice the lease.
                break
        assert cloud.get(instance["name"])["status"]["state"] == "RUNNING"
    eventually(lambda: is_gone(cloud, instance), "it is gone", _LONG_S)


@pytest.mark.full
def test_a_guest_that_powers_itself_off_boots_again_where_that_is_wanted(cloud: Cloud) -> None:
    instance = cloud.launch_ready(restartPolicy="always")
    boot_id = cloud.boot_id(instance["name"])
    cloud.exec(instance["name"], "/bin/sh", "-c", "(sleep 0.2; poweroff) >/dev/null 2>&1 &")
    eventually(lambda: cloud.get(instance["name"])["status"]["restartCount"] == 1, "it restarts", _LONG_S)
    cloud.wait_ready(instance["name"])
    assert cloud.boot_id(instance["name"]) != boot_id
    assert cloud.get(instance["name"])["desiredPower"] == "RUNNING"
    cloud.delete(instance["name"])


@pytest.mark.full
def test_an_instance_is_gone_when_its_time_has_run_out(cloud: Cloud) -> None:
    instance = cloud.launch(ttl="20s")
    eventually(lambda: is_gone(cloud, instance), "it is gone", _LONG_S)
    assert cloud.leaks() == []


@pytest.mark.full
@pytest.mark.native("its stack has settings of its own: short times")
def test_autostart_brings_back_what_ended_with_vm_host(hasty_cloud: Cloud) -> None:
    cloud = hasty_cloud
    instance = cloud.launch(autostart=True)
    other = cloud.launch()
    cloud.stack.kill_and_wait_restarted("vm-host")
    eventually(
        lambda: (
            cloud.get(instance["name"])["status"]["restartCount"] == 1
            and cloud.get(instance["name"])["status"]["state"] == "RUNNING"
        ),
        "it runs again",
        _LONG_S,
    )
    assert len(cloud.stack.qemu_processes(instance["id"])) == 1
    eventually(lambda: cloud.get(other["name"])["status"]["reason"] == "VM_HOST_EXITED", "the other is lost")
    for name in (instance["name"], other["name"]):
        cloud.delete(name)
