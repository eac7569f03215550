"""The systemd units: systemd takes them, they fit their configuration, and no restart ends a guest."""

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from qcontroller.settings.v1 import settings_pb2
from qcstack.layout import ENDING
from qemu_runner.settings import parse_settings
from servicekit.settings import load_settings
from vm_host.settings import load

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "deploy" / "systemd"
SERVICES = ("gateway", "controller", "image-store", "qemu-runner", "vm-host")
SYSTEMD = Path("/usr/lib/systemd")
# What makes the end or the restart of one unit that of another.
TIES = ("Requires", "Requisite", "BindsTo", "PartOf", "PropagatesStopTo", "Upholds", "Conflicts")


def unit(name: str) -> dict[str, list[str]]:
    """Return the words of each key of a unit; a key may occur more than once."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith(("#", ";")):
            found.setdefault(key, []).extend(value.split())
    return found


def service(name: str) -> dict[str, list[str]]:
    return unit(f"qcontroller-{name}.service")


def configuration(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((UNITS / "etc" / f"{name}.json").read_text())
    return document


def texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value.removeprefix("unix:")
    elif isinstance(value, list | dict):
        yield from itertools.chain.from_iterable(
            map(texts, value.values() if isinstance(value, dict) else value)
        )


def numbers(file: Path) -> dict[str, int]:
    """Return the ids by name that a passwd or group file tells."""
    rows = (line.split(":") for line in file.read_text().splitlines())
    return {row[0]: int(row[2]) for row in rows}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory in which the units are installed, beside systemd's own."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(SYSTEMD / "system", root / "usr/lib/systemd/system", symlinks=True)
    (root / "lib").symlink_to("usr/lib")
    program = root / "opt/qcontroller/bin/python"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    installed = root / "etc/systemd/system"
    installed.mkdir(parents=True)
    for file in (*UNITS.glob("*.service"), *UNITS.glob("*.target")):
        shutil.copy(file, installed)
    return root


def analyze(host: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *words[:1], f"--root={host}", "--no-pager", *words[1:]],
        capture_output=True,
        text=True,
        check=False,
    )


def test_systemd_has_nothing_to_say_of_the_units(host: Path) -> None:
    names = [f"qcontroller-{name}.service" for name in SERVICES]
    done = analyze(host, "verify", "--man=no", "qcontroller.target", *names)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_would_name_a_fault(host: Path) -> None:
    (host / "etc/systemd/system/faulty.service").write_text("[Service]\nExecStart=/bin/none\nKilMode=none\n")
    done = analyze(host, "verify", "--man=no", "faulty.service")
    assert "KilMode" in done.stderr


@pytest.mark.parametrize("name", ["gateway", "controller", "image-store"])
def test_services_without_privileges_are_little_exposed(host: Path, name: str) -> None:
    done = analyze(host, "security", "--offline=yes", "--threshold=25", f"qcontroller-{name}.service")
    assert done.returncode == 0, done.stdout


def test_the_target_starts_every_service() -> None:
    assert set(unit("qcontroller.target")["Wants"]) == {f"qcontroller-{name}.service" for name in SERVICES}


def test_nothing_but_its_own_stop_and_the_targets_ends_vm_host() -> None:
    own = service("vm-host")
    assert not any(key in own for key in TIES)
    assert own["StopPropagatedFrom"] == ["qcontroller.target"]
    for name in SERVICES:
        tied = itertools.chain.from_iterable(service(name).get(key, []) for key in TIES)
        assert "qcontroller-vm-host.service" not in tied


def test_only_vm_host_is_told_to_end_and_guests_have_its_cgroup() -> None:
    own = service("vm-host")
    assert (own["KillMode"], own["Delegate"], own["OOMPolicy"]) == (["process"], ["yes"], ["continue"])
    assert "ProtectControlGroups" not in own


def test_every_other_service_goes_with_the_target() -> None:
    for name in set(SERVICES) - {"vm-host"}:
        assert service(name)["PartOf"] == ["qcontroller.target"]


def test_they_end_in_the_order_of_every_native_stack() -> None:
    # systemd ends in the reverse order of `After`.
    for before, after in itertools.pairwise(ENDING):
        assert f"qcontroller-{after}.service" in service(before)["After"] or (before, after) == (
            "qemu-runner",
            "image-store",
        )
    assert "qcontroller-image-store.service" in service("qemu-runner")["After"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_runs_its_service_with_its_configuration(name: str) -> None:
    package = name.replace("-", "_")
    assert service(name)["ExecStart"][1:] == ["-m", package, "--config", f"/etc/qcontroller/{name}.json"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gateway", settings_pb2.GatewaySettings()),
        ("controller", settings_pb2.ControllerSettings()),
        ("image-store", settings_pb2.ImageStoreSettings()),
        ("qemu-runner", settings_pb2.RunnerSettings()),
    ],
)
def test_the_services_read_the_configuration(name: str, message: Any) -> None:
    read = load_settings(message, UNITS / "etc" / f"{name}.json", env_prefix="QC_TEST_", environ={})
    if isinstance(read, settings_pb2.RunnerSettings):
        assert str(parse_settings(read).state_dir) == f"/var/lib/{service(name)['StateDirectory'][0]}"


def test_vm_host_reads_its_configuration_and_may_end_its_guests_in_time() -> None:
    read = load(UNITS / "etc" / "vm-host.json", {})
    assert read.stop_grace_s + 20 < int(service("vm-host")["TimeoutStopSec"][0])


def test_every_socket_lies_in_a_directory_that_its_server_may_write_to() -> None:
    made = [line.split() for line in (UNITS / "tmpfiles.conf").read_text().splitlines() if line[:2] == "d "]
    directories = {words[1]: words for words in made}
    listening = {
        "controller": configuration("controller")["listen"],
        "image-store": [
            *configuration("image-store")["listen"],
            *configuration("image-store")["controllerListen"],
            *configuration("image-store")["runnerListen"],
        ],
        "qemu-runner": configuration("qemu-runner")["listen"],
        "vm-host": [configuration("vm-host")["socketPath"]],
    }
    for name, sockets in listening.items():
        for socket in texts(sockets):
            if socket.startswith("/"):
                directory = str(Path(socket).parent)
                assert directory in service(name)["ReadWritePaths"], name
                assert directories[directory][3] == service(name).get("User", ["root"])[0]
    meant = {text for name in SERVICES for text in texts(configuration(name)) if text.startswith("/run/")}
    assert {str(Path(socket).parent) for socket in meant} == set(directories) - {"/run/qcontroller"}


def test_each_client_of_an_edge_is_in_its_group_and_nobody_else() -> None:
    for line in (UNITS / "sysusers.conf").read_text().splitlines():
        if line.startswith("m "):
            _, user, group = line.split()
            assert group in service(user.removeprefix("qc-"))["SupplementaryGroups"]
    members = {group for name in SERVICES for group in service(name).get("SupplementaryGroups", [])}
    groups = {
        line.split()[1] for line in (UNITS / "sysusers.conf").read_text().splitlines() if line[:2] == "g "
    }
    assert members == groups


@pytest.mark.parametrize("name", ["qemu-runner", "vm-host"])
def test_the_capabilities_are_those_of_the_containers(name: str) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    wanted = {f"CAP_{capability}" for capability in compose["services"][name]["cap_add"]}
    assert set(service(name)["CapabilityBoundingSet"]) == wanted


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_users_and_directories_are_made(host: Path) -> None:
    (host / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (host / "etc/group").write_text("root:x:0:\n")
    for program, file in (("systemd-sysusers", "sysusers.conf"), ("systemd-tmpfiles", "tmpfiles.conf")):
        words = ["--create"] if program == "systemd-tmpfiles" else []
        subprocess.run([program, f"--root={host}", *words, UNITS / file], check=True, capture_output=True)
    users, groups = (numbers(host / "etc" / name) for name in ("passwd", "group"))
    made = (host / "run/qcontroller/gateway-controller").stat()
    assert (made.st_uid, made.st_gid) == (users["qc-controller"], groups["qc-gateway-controller"])
    assert made.st_mode & 0o7777 == 0o2750
