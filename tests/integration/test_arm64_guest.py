"""A guest of another architecture, emulated: it answers, and its firmware remembers."""

import os
import subprocess
from pathlib import Path

import pytest
from framework.cloud import Cloud, document
from framework.guests import ROOT
from framework.stack import eventually

pytestmark = [pytest.mark.full]
if "qemu-system-arm" not in os.environ.get("QC_GUEST_PACKAGES", ""):
    pytestmark.append(
        pytest.mark.native("the containers' vm-host has the emulator only where QC_GUEST_PACKAGES names it")
    )

_BOOT_S = 600


def guest() -> Path:
    """Build the small guest for arm64."""
    build = ROOT / "packer" / "guests" / "tiny" / "build"
    done = subprocess.run([build, "--arch", "arm64"], stdout=subprocess.PIPE, check=True, text=True)
    return Path(done.stdout.splitlines()[-1])


def machine_of(cloud: Cloud, name: str) -> str:
    """Return the architecture that the guest's agent has told."""
    told = cloud.get(name)["status"].get("guest", {}).get("os", {})
    return str(told.get("machine", ""))


def test_an_arm64_guest_answers_and_keeps_its_firmwares_variables(cloud: Cloud) -> None:
    image = guest()
    with image.open("rb") as body:
        uploaded = cloud.api.request(
            "PUT",
            "/v1/images/tiny-arm64",
            params={"arch": "aarch64"},
            content=body.read(),
            headers={"Content-Type": "application/octet-stream"},
        )
    assert (uploaded.status_code, document(uploaded)["arch"]) == (201, "aarch64")
    instance = cloud.launch(image="tiny-arm64")
    name = instance["name"]
    assert (instance["arch"], instance["status"]["accelerator"]) == ("aarch64", "tcg")
    cloud.wait_ready(name, _BOOT_S)
    # The agent tells it from inside; it may need a while on a host with much to do.
    eventually(lambda: machine_of(cloud, name) == "aarch64", "the guest tells its architecture", _BOOT_S)
    ran = cloud.exec(name, "/bin/sh", "-c", "cat; uname -m; exit 3", stdin="in-", timeout="60s")
    assert (ran["exitCode"], ran["stdout"]) == (3, "in-aarch64\n")
    (pid,) = cloud.stack.qemu_processes(instance["id"])
    assert Path(f"/proc/{pid}/comm").read_text().startswith("qemu-system-aar")
    variables = cloud.stack.machine_dir(instance["id"]) / "vars.fd"
    before, written = variables.stat().st_ino, variables.read_bytes().rstrip(b"\0")
    assert written, "the firmware has begun a store"
    # Its power button works, so the stop needs no force.
    stopped = cloud.verb(name, "stop", timeout="80s")
    assert stopped["status"]["state"] == "STOPPED"
    cloud.verb(name, "start")
    cloud.wait_ready(name, _BOOT_S)
    assert variables.stat().st_ino == before
    # The flash is written on, not begun anew: between erasures its bits are only ever cleared.
    after = variables.read_bytes()
    assert all(new & old == new for new, old in zip(after, written, strict=False))
    cloud.delete(name)


def test_an_image_of_another_architecture_than_asked_for_is_refused(cloud: Cloud) -> None:
    body = {"name": "arm-1", "image": "tiny", "arch": "aarch64"}
    response = cloud.api.request("POST", "/v1/instances", json=body)
    assert response.status_code == 400
    assert [error["pointer"] for error in document(response)["errors"]] == ["/arch"]
