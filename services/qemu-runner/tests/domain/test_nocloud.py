"""What is on a seed, read as cloud-init reads it."""

from typing import Any

import pytest
import yaml
from qemu_runner.domain.machine import MachineId, Nic, Seed
from qemu_runner.domain.nocloud import seed_files

MACHINE = MachineId("7d0c0c0c-0000-4000-8000-000000000000")
NICS = (Nic("qc0", "52:54:00:12:34:56"), Nic("user", "52:54:00:00:00:0a"))


def read(seed: Seed, name: str) -> Any:
    """Return a file of the seed as YAML says that it is."""
    return yaml.safe_load(seed_files(MACHINE, seed, NICS)[name])


def test_only_what_there_is_has_a_file() -> None:
    assert set(seed_files(MACHINE, Seed(hostname="web-1"), ())) == {"meta-data", "user-data"}


def test_vendor_data_stands_beside_user_data() -> None:
    files = seed_files(MACHINE, Seed(b"#!/bin/sh\n", vendor_data=b"#cloud-config\n{}\n"), NICS)
    assert (files["user-data"], files["vendor-data"]) == (b"#!/bin/sh\n", b"#cloud-config\n{}\n")


def test_without_a_network_config_every_card_asks_by_its_mac() -> None:
    assert read(Seed(), "network-config") == {
        "version": 2,
        "ethernets": {
            # Unquoted, the first would be a number to YAML.
            "eth0": {"match": {"macaddress": "52:54:00:12:34:56"}, "dhcp4": True},
            "eth1": {"match": {"macaddress": "52:54:00:00:00:0a"}, "dhcp4": True, "optional": True},
        },
    }


def test_a_network_config_of_the_users_is_passed_byte_for_byte() -> None:
    given = b"# mine\nversion: 2\n"
    assert seed_files(MACHINE, Seed(network_config=given), NICS)["network-config"] == given


@pytest.mark.parametrize("name", ["web-1", "null", "true", "123", "1e3", "web-1.example.org", 'a"b\nx: y'])
def test_a_host_name_is_a_text_whatever_it_looks_like(name: str) -> None:
    meta = read(Seed(hostname=name, instance_id="7d0c-1"), "meta-data")
    assert meta == {"instance-id": "7d0c-1", "local-hostname": name}


def test_a_machine_without_names_goes_by_its_id() -> None:
    assert read(Seed(), "meta-data") == {"instance-id": MACHINE, "local-hostname": MACHINE}


def test_keys_are_meta_data() -> None:
    keys = ("ssh-ed25519 AAAA: me # \N{GRINNING FACE} \\ '", 'ssh-rsa AAAA "x"')
    assert read(Seed(public_keys=keys), "meta-data")["public-keys"] == list(keys)
