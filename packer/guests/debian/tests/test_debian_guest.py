"""The Debian guest, really booted once: its agent, cloud-init, network, ssh and root file system."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_machine import Machine, machine, seed_disk

BUILDER = Path(__file__).resolve().parents[1] / "build"
BUILD_DEADLINE_S = 600

# A minute on an unloaded host without KVM.
AGENT_DEADLINE_S = 300.0
CLOUD_INIT_DEADLINE_S = 300.0
POWER_OFF_DEADLINE_S = 120.0
DISK_MIB = 4096

USER_DATA = """\
#cloud-config
hostname: from-user-data
ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7sPpz1mZNXxvTvGmTbgv5aHSp3Zqs0fVoA4CN1TAbt test]
runcmd:
  - [sh, -c, "echo ran > /root/runcmd"]
"""
META_DATA = "instance-id: i-123\nlocal-hostname: from-meta-data\n"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return one guest that has finished cloud-init, on a disk larger than its image."""
    done = subprocess.run([BUILDER], capture_output=True, text=True, timeout=BUILD_DEADLINE_S, check=True)
    image = Path(done.stdout.splitlines()[-1])
    directory = tmp_path_factory.mktemp("debian")
    seed = seed_disk(directory, user_data=USER_DATA, meta_data=META_DATA)
    with machine(image, directory, seed=seed, memory_mib=512, disk_mib=DISK_MIB) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        status, text = running.exec(
            "/usr/bin/cloud-init", "status", "--wait", timeout_s=CLOUD_INIT_DEADLINE_S
        )
        assert status == 0, text
        yield running


def test_the_agent_says_debian_12(guest: Machine) -> None:
    info = guest.ask_agent("guest-get-osinfo")
    assert (info["id"], info["version-id"]) == ("debian", "12")


def test_cloud_init_read_the_seed_without_errors(guest: Machine) -> None:
    result = json.loads(guest.exec("/bin/cat", "/run/cloud-init/result.json")[1])
    assert result["v1"]["errors"] == []
    assert result["v1"]["datasource"].startswith("DataSourceNoCloud")


def test_the_host_name_comes_from_user_data(guest: Machine) -> None:
    assert guest.ask_agent("guest-get-host-name")["host-name"] == "from-user-data"


def test_runcmd_ran(guest: Machine) -> None:
    assert guest.exec("/bin/cat", "/root/runcmd") == (0, "ran\n")


def test_the_nic_has_its_address_from_dhcp(guest: Machine) -> None:
    interfaces = guest.ask_agent("guest-network-get-interfaces")
    assert "10.0.2.15" in [a["ip-address"] for i in interfaces for a in i.get("ip-addresses", [])]


def test_the_root_file_system_fills_the_disk(guest: Machine) -> None:
    _, text = guest.exec("/bin/df", "--output=size", "--block-size=MiB", "/")
    assert int(text.split()[-1].removesuffix("MiB")) > DISK_MIB * 0.8


def test_ssh_serves_with_a_key_of_this_machine(guest: Machine) -> None:
    status, text = guest.exec("/bin/sh", "-c", "systemctl is-active ssh && ls /etc/ssh/ssh_host_ed25519_key")
    assert status == 0, text


def test_no_user_has_a_password(guest: Machine) -> None:
    _, text = guest.exec("/usr/bin/awk", "-F:", "$2 !~ /^[!*]/", "/etc/shadow")
    assert text == ""


def test_the_key_of_user_data_lets_debian_in(guest: Machine) -> None:
    assert "AAAAC3NzaC1lZDI1NTE5" in guest.exec("/bin/cat", "/home/debian/.ssh/authorized_keys")[1]


def test_no_unit_failed(guest: Machine) -> None:
    assert guest.exec("/usr/bin/systemctl", "--failed", "--no-legend", "--plain") == (0, "")


def test_the_kernel_hook_renews_the_boot_partition(guest: Machine) -> None:
    # What update-initramfs runs at its end; the making itself takes minutes without KVM.
    renew = "run-parts /etc/initramfs/post-update.d && cmp /initrd.img /boot/loader/initrd"
    status, text = guest.exec("/bin/sh", "-c", f"echo stale > /boot/loader/initrd && {renew}")
    assert status == 0, text


def test_the_power_button_powers_off(guest: Machine) -> None:
    guest.command("system_powerdown")
    guest.event("SHUTDOWN", POWER_OFF_DEADLINE_S, guest=True)
    assert guest.wait_exit() == 0
