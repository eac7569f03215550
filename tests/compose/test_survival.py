"""What a running guest outlives, and what it does not."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from framework import guests
from framework.cloud import Cloud
from framework.containers import Containers, client, docker, qemu_of, running
from framework.stack import eventually

pytestmark = pytest.mark.compose

_OTHERS = ("gateway", "controller", "image-store", "minio", "qemu-runner")


@pytest.fixture(scope="module")
def guest(cloud: Cloud) -> Iterator[dict[str, Any]]:
    """A guest whose agent answers, with the id of its boot."""
    instance = cloud.launch_ready()
    yield {**instance, "bootId": cloud.boot_id(instance["name"])}
    cloud.delete(instance["name"])


@pytest.mark.parametrize("service", _OTHERS)
def test_a_guest_outlives_the_replacement_of_a_service(
    containers: Containers, cloud: Cloud, guest: dict[str, Any], service: str
) -> None:
    container = containers.inspect(service)["Id"]
    containers.recreate(service)
    assert containers.inspect(service)["Id"] != container
    _assert_lives_on(containers, cloud, guest)


@pytest.mark.parametrize("service", _OTHERS)
def test_a_guest_outlives_a_kill_of_a_service(
    containers: Containers, cloud: Cloud, guest: dict[str, Any], service: str
) -> None:
    containers.kill(service)
    _assert_lives_on(containers, cloud, guest)


def test_a_crashed_runner_is_restarted_inside_its_container(
    containers: Containers, cloud: Cloud, guest: dict[str, Any]
) -> None:
    container, runner = containers.pid("qemu-runner"), containers.runner_pid()
    os.kill(runner, signal.SIGKILL)
    eventually(lambda: containers.runner_pid() != runner, "another runner runs")
    _assert_lives_on(containers, cloud, guest)
    assert containers.pid("qemu-runner") == container


def test_images_can_be_uploaded_again_when_minio_is_back(
    containers: Containers, cloud: Cloud, guest: dict[str, Any]
) -> None:
    containers.compose.run("restart", "minio", timeout_s=120)
    containers.wait_ready()
    assert cloud.upload("again", guests.tiny())["state"] == "READY"
    assert cloud.api.request("DELETE", "/v1/images/again").status_code == 204


def test_down_powers_guests_off_and_leaves_nothing(images: None) -> None:
    with (
        running("qcontroller-down", bridge="qct1", subnet="10.72.0.0/16") as containers,
        client(containers) as cloud,
    ):
        cloud.upload("tiny", guests.tiny())
        instance = cloud.launch_ready()
        qemu = qemu_of(instance["id"])
        assert qemu is not None
        # The hardest moment: the runner has just died and cannot clean anything.
        os.kill(containers.runner_pid(), signal.SIGKILL)
        containers.compose.down()
        assert not qemu.alive()
        containers.assert_nothing_is_left()
        containers.compose.up()
        after = cloud.get(instance["name"])
        assert (after["status"]["state"], after["desiredPower"]) == ("STOPPED", "RUNNING")
        containers.compose.down(volumes=True)
        assert "qcontroller-down" not in docker("volume", "ls", "--format", "{{.Name}}")


def _assert_lives_on(containers: Containers, cloud: Cloud, guest: dict[str, Any]) -> None:
    containers.wait_ready()
    name = guest["name"]
    cloud.wait_ready(name)
    assert cloud.boot_id(name) == guest["bootId"]
    assert cloud.verb(name, "pause")["status"]["state"] == "PAUSED"
    assert cloud.verb(name, "resume")["status"]["state"] == "RUNNING"
