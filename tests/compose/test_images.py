"""How images depend on the checkout: on their own parts, and vm-host's on nothing but itself."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from framework import guests
from framework.cloud import Cloud
from framework.containers import SERVICES, Containers, client, docker, running
from qcengine import base_images
from qcengine.project import Project
from qcstack.compose import ROOT, lost_files

pytestmark = pytest.mark.compose

_SERVICES = ("gateway", "controller", "image-store", "qemu-runner", "vm-host")


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of the checkout, whose files may be changed."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        source, target = ROOT / name, tmp_path / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            # With times of their own: see docs/surprises.md on BuildKit and files that it had been sent.
            shutil.copy(source, target)
    yield tmp_path
    for service in _SERVICES:
        subprocess.run(
            ["docker", "image", "rm", f"qcontroller-{service}:edited"], check=False, capture_output=True
        )


def _build(checkout: Path, service: str) -> str:
    base = base_images.available()
    assert base is not None
    values = dict(
        line.split("=", 1) for line in (ROOT / ".env").read_text("utf-8").splitlines() if "=" in line
    )
    # What compose hands to builds too: layers that another build has pushed out of the cache are made anew.
    secrets = [
        f"--secret=id={name},src={values.get(variable, '/dev/null')}"
        for name, variable in (("ca", "QC_CA"), ("pip", "QC_PIP_CONF"))
    ]
    name = f"qcontroller-{service}:edited"
    command = ["build", "--quiet", *secrets, "--build-arg", f"BASE={base}", "--tag", name]
    if service == "gateway":
        command += ["--build-arg", f"PAGE_SOURCE={values.get('QC_PAGE_SOURCE', 'build')}"]
    command += ["--file", str(checkout / "services" / service / "Dockerfile"), str(checkout)]
    try:
        docker(*command, within_s=600)
    except AssertionError as exc:
        if not lost_files(str(exc)):
            raise
        docker(*command, within_s=600)
    return _image(name)


def _image(name: str) -> str:
    return docker("image", "inspect", "--format", "{{.Id}}", name).strip()


def test_a_changed_line_of_a_service_rebuilds_its_image_and_no_other(images: None, checkout: Path) -> None:
    before = {service: _build(checkout, service) for service in _SERVICES}
    for file in (checkout / "services" / "qemu-runner" / "src").rglob("*.py"):
        file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    after = {service: _build(checkout, service) for service in _SERVICES}
    assert {service for service in _SERVICES if before[service] != after[service]} == {"qemu-runner"}


def test_the_tag_of_vm_host_follows_its_own_files_and_its_base(checkout: Path) -> None:
    project = Project(checkout)
    tag = project.vm_host_tag("base:1")
    changed = checkout / "services" / "qemu-runner" / "src" / "qemu_runner" / "app.py"
    changed.write_text("# changed\n", encoding="utf-8")
    assert project.vm_host_tag("base:1") == tag
    assert project.vm_host_tag("base:2") != tag
    own = checkout / "services" / "vm-host" / "src" / "vm_host" / "app.py"
    own.write_text("# changed\n", encoding="utf-8")
    assert project.vm_host_tag("base:1") != tag


def test_a_rebuilt_runner_takes_over_a_running_guest(
    containers: Containers, cloud: Cloud, checkout: Path
) -> None:
    with cloud.instance(nics=[]) as instance:
        cloud.wait_ready(instance["name"])
        boot, vm_host = cloud.boot_id(instance["name"]), containers.inspect("vm-host")["Id"]
        for file in (checkout / "services" / "qemu-runner" / "src").rglob("*.py"):
            file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
        _build(checkout, "qemu-runner")
        local = "qcontroller-qemu-runner:local"
        original = _image(local)
        docker("tag", "qcontroller-qemu-runner:edited", local)
        try:
            containers.compose.up()
            assert containers.inspect("qemu-runner")["Image"] == _image("qcontroller-qemu-runner:edited")
            assert containers.inspect("vm-host")["Id"] == vm_host
            cloud.wait_ready(instance["name"])
            assert cloud.boot_id(instance["name"]) == boot
        finally:
            docker("tag", original, local)
            containers.compose.up()


@pytest.mark.full
def test_up_with_build_behind_a_changed_runner_leaves_its_guest_alone(images: None, checkout: Path) -> None:
    _prepare(checkout)
    local = "qcontroller-qemu-runner:local"
    original = _image(local)
    edited = running("qcontroller-edited", root=checkout, bridge="qct5", subnet="10.73.0.0/16")
    try:
        with edited as containers, client(containers) as cloud:
            cloud.upload("tiny", guests.tiny())
            name = cloud.launch_ready()["name"]
            boot, vm_host = cloud.boot_id(name), containers.inspect("vm-host")["Id"]
            for file in (checkout / "services" / "qemu-runner" / "src").rglob("*.py"):
                file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
            containers.compose.run("up", "--detach", "--build", "--wait", timeout_s=1200)
            assert containers.inspect("qemu-runner")["Image"] != original
            assert containers.inspect("vm-host")["Id"] == vm_host
            cloud.wait_ready(name)
            assert cloud.boot_id(name) == boot
            cloud.delete(name)
    finally:
        docker("tag", original, local)


# Last: plain `up --build` makes vm-host anew where the cache is gone, which `make up` does not.
@pytest.mark.full
def test_make_up_behind_a_pruned_build_cache_leaves_vm_host_and_its_guest_alone(
    containers: Containers, cloud: Cloud
) -> None:
    with cloud.instance(nics=[]) as instance:
        cloud.wait_ready(instance["name"])
        boot, before = cloud.boot_id(instance["name"]), _images_of(containers)
        vm_host = containers.inspect("vm-host")["Id"]
        docker("builder", "prune", "--all", "--force", within_s=300)
        containers.compose.build(print)
        containers.compose.up()
        after = _images_of(containers)
        assert after["gateway"] != before["gateway"], "the control failed: nothing was built anew"
        assert after["vm-host"] == before["vm-host"]
        assert containers.inspect("vm-host")["Id"] == vm_host
        cloud.wait_ready(instance["name"])
        assert cloud.boot_id(instance["name"]) == boot


def _images_of(containers: Containers) -> dict[str, str]:
    return {service: str(containers.inspect(service)["Image"]) for service in SERVICES}


def _prepare(checkout: Path) -> None:
    """Give a copy of the checkout what `make up` has told the real one of this host."""
    shutil.copy2(ROOT / ".env", checkout)
    built = ROOT / ".cache" / "compose"
    if built.exists():
        shutil.copytree(built, checkout / ".cache" / "compose", copy_function=os.link)
