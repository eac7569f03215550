"""KVM: every way in which it is unusable has its reason."""

from pathlib import Path

import pytest
from vm_host.kvm import KvmAccess, probe_kvm
from vm_host.launcher import Launcher
from vm_host.programs import Programs
from vm_host.requests import parse_spawn
from vm_host_process import handle


def test_no_device(tmp_path: Path) -> None:
    found = probe_kvm(device=tmp_path / "kvm")
    assert (found.usable, found.gid) == (False, None)
    assert "No such file" in found.reason


def test_a_device_that_is_not_kvm() -> None:
    found = probe_kvm(device=Path("/dev/null"))
    assert not found.usable
    assert "does not answer as KVM" in found.reason


def answer(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    monkeypatch.setattr("vm_host.kvm.fcntl.ioctl", lambda _descriptor, _request: version)


def test_another_api_version(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 11)
    assert "API version 11" in probe_kvm(device=Path("/dev/null")).reason


@pytest.mark.parametrize(("flags", "usable"), [("fpu vmx", True), ("fpu svm", True), ("fpu sse", False)])
def test_an_x86_cpu_must_show_virtualisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, usable: bool
) -> None:
    answer(monkeypatch, 12)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert probe_kvm(Path("/dev/null"), cpuinfo, "x86_64").usable is usable


def test_an_arm_cpu_shows_no_flags_and_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 12)
    assert probe_kvm(Path("/dev/null"), tmp_path / "cpuinfo", "aarch64").usable


@pytest.mark.parametrize(("role", "groups"), [("qemu", "--groups=36"), ("passt", "--clear-groups")])
def test_a_qemu_and_nobody_else_is_in_the_group_of_a_usable_device(
    monkeypatch: pytest.MonkeyPatch, role: str, groups: str
) -> None:
    monkeypatch.setattr("vm_host.launcher.probe_kvm", lambda: KvmAccess(usable=True, reason="", gid=36))
    request = parse_spawn({"handle": handle(role), "argv": ["true"], "fds": [], "uid": 20_001, "gid": 20_001})
    assert groups in Launcher(Programs(["true"]))._wrapper(request)
