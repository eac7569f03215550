"""What a host name and a package are, and what becomes of them."""

import json

import pytest
import yaml
from controller.domain.first_boot import (
    MAX_PACKAGES,
    FirstBoot,
    FirstBootPatch,
    first_boot_faults,
)


@pytest.mark.parametrize(
    "name", ["web", "WEB-1", "1", "a" * 63, "web.example.org", "3com.example.org", ".".join(["a" * 61] * 4)]
)
def test_a_host_name_or_fqdn_is_taken(name: str) -> None:
    assert first_boot_faults(FirstBoot(hostname=name)) == []


@pytest.mark.parametrize(
    "name",
    [
        "-a", "a-", "a_b", "a..b", ".a", "a.", "a b", "a\nb", "ä", "a" * 64, "10.0.0.1", "a.1",
        ".".join(["a" * 63] * 4), "$(reboot)", "a: b",
    ],
)  # fmt: skip
def test_what_is_no_host_name_is_refused(name: str) -> None:
    assert [fault.pointer for fault in first_boot_faults(FirstBoot(hostname=name))] == ["/hostname"]


@pytest.mark.parametrize(
    "name", ["nginx", "g++", "libstdc++6", "python3.11", "0ad", "python3_x", "NetworkManager"]
)
def test_a_package_is_taken(name: str) -> None:
    assert first_boot_faults(FirstBoot(packages=(name,))) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-y",
        "--allow-downgrades",
        "a b",
        "vim-",
        "nginx=1.2",
        "a/b",
        "./a.deb",
        "a;b",
        "a\nb",
        "$(b)",
        "ä",
        "a" * 129,
    ],
)
def test_what_is_no_package_is_refused(name: str) -> None:
    faults = first_boot_faults(FirstBoot(packages=("nginx", name)))
    assert [fault.pointer for fault in faults] == ["/packages/1"]


def test_packages_are_bounded_and_different() -> None:
    assert first_boot_faults(FirstBoot(packages=("a", "b", "a")))[0].pointer == "/packages/2"
    many = tuple(f"p{number}" for number in range(MAX_PACKAGES + 1))
    assert [fault.pointer for fault in first_boot_faults(FirstBoot(packages=many))] == ["/packages"]


def test_vendor_data_is_a_cloud_config_in_json() -> None:
    header, body = FirstBoot(packages=("nginx", "123", "null")).vendor_data.decode().split("\n", 1)
    assert header == "#cloud-config"
    assert json.loads(body) == yaml.safe_load(body) == {"packages": ["nginx", "123", "null"]}


def test_without_packages_there_is_no_vendor_data() -> None:
    assert FirstBoot(ssh_keys=("x",), hostname="a").vendor_data == b""


def test_a_patch_changes_what_it_gives() -> None:
    now = FirstBoot(("k",), "a", ("p",))
    assert FirstBootPatch(hostname="").over(now) == FirstBoot(("k",), "", ("p",))
    assert FirstBootPatch(ssh_keys=()).over(now) == FirstBoot((), "a", ("p",))
    assert not FirstBootPatch()
    assert FirstBootPatch(packages=())
