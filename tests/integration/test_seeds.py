"""The seed's disk as the guest reads it, and when its file is written."""

import base64
import gzip
import json

import pytest
from framework.cloud import Cloud, document
from framework.stack import eventually

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICnvNSUtMI4qBdkDs++uRNCRBb8ELEmU1gwqD/zv5S+J me@host"
CANARY = "binary-canary-7d1f"
# Bytes that are no UTF-8, as gzip makes them.
PACKED = gzip.compress(f"#cloud-config\n# {CANARY}\n".encode()) + bytes(range(256))


def on_the_seed(cloud: Cloud, name: str) -> dict[str, bytes]:
    """Return the files that the guest finds on the seed."""
    # The agent answers before the guest has read its seed, which is when it learns that file system.
    eventually(
        lambda: cloud.exec(name, "/bin/ls", "/run/cloud-init/result.json")["exitCode"] == 0,
        "the guest has read its seed",
    )
    told = cloud.exec(
        name, "/bin/sh", "-c",
        "mkdir -p /tmp/seed && mount -t iso9660 -o ro /dev/vdb /tmp/seed && cd /tmp/seed && "
        "for f in *; do echo $f $(base64 $f | tr -d '\\n'); done; cd / && umount /tmp/seed",
    )  # fmt: skip
    assert told["exitCode"] == 0, told
    lines = [line.split() for line in told["stdout"].splitlines()]
    return {words[0]: base64.b64decode(words[1]) for words in lines}


def test_the_guest_finds_bytes_keys_names_packages_and_its_card_on_the_seed(cloud: Cloud) -> None:
    # Unquoted, the name would be nothing at all in YAML.
    instance = cloud.launch_ready(
        "null",
        cloudInit={"userdataBase64": base64.b64encode(PACKED).decode()},
        sshKeys=[KEY],
        packages=["nginx"],
    )
    name, mac = instance["name"], instance["status"]["nics"][0]["mac"]
    assert (instance["sshKeys"], instance["hostname"], instance["packages"]) == ([KEY], "", ["nginx"])
    eventually(
        lambda: cloud.exec(name, "/bin/hostname")["stdout"].strip() == "null", "the guest has taken its name"
    )
    files = on_the_seed(cloud, name)
    assert files["user-data"] == PACKED
    assert json.loads(files["network-config"]) == {
        "version": 2,
        "ethernets": {"eth0": {"match": {"macaddress": mac}, "dhcp4": True}},
    }
    assert json.loads(files["vendor-data"].split(b"\n", 1)[1]) == {"packages": ["nginx"]}
    assert KEY.encode() in files["meta-data"]
    answers = [cloud.api.request("GET", path).text for path in (f"/v1/instances/{name}", "/v1/operations")]
    encoded = base64.b64encode(PACKED).decode()
    cloud.delete(name)
    for shown in (*answers, *cloud.stack.logs().values()):
        assert CANARY not in shown
        assert encoded[:40] not in shown


def test_a_seed_is_written_only_when_it_changes(cloud: Cloud) -> None:
    instance = cloud.launch_ready(cloudInit={"userdata": "#cloud-config\n"}, hostname="first.example")
    name = instance["name"]
    seed = cloud.stack.machine_dir(instance["id"]) / "seed.iso"

    def state() -> tuple[int, int]:
        found = seed.stat()
        return found.st_ino, found.st_mtime_ns

    first = state()
    cloud.verb(name, "stop", force=True)
    cloud.verb(name, "start")
    assert state() == first, "the same seed is left as it is"
    cloud.verb(name, "stop", force=True)
    patch = {"hostname": "second.example"}
    changed = cloud.api.request("PATCH", f"/v1/instances/{name}", json=patch, headers={"Prefer": "wait=60"})
    assert (changed.status_code, document(changed)["hostname"]) == (200, "second.example"), changed.text
    cloud.verb(name, "start")
    assert state() != first
    cloud.wait_ready(name)
    eventually(
        lambda: cloud.exec(name, "/bin/hostname")["stdout"].strip() == "second",
        "the guest has its other name",
    )
    cloud.delete(name)


def test_without_a_card_there_is_no_network_config(cloud: Cloud) -> None:
    name = cloud.launch_ready(nics=[])["name"]
    assert set(on_the_seed(cloud, name)) == {"meta-data", "user-data"}
    cloud.delete(name)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("version: 2\nethernets: {eth0: {dhcp4: maybe}}", "ethernets.eth0.dhcp4 must be true or false"),
        ("version: 2\nethernets: [", "is not YAML"),
    ],
)
def test_a_network_config_that_no_guest_could_read_is_refused(cloud: Cloud, config: str, told: str) -> None:
    body = {"name": "no-net", "image": "tiny", "cloudInit": {"networkConfig": config}}
    refused = cloud.api.request("POST", "/v1/instances", json=body)
    assert (refused.status_code, document(refused)["reason"]) == (400, "FIELD_INVALID")
    (fault,) = document(refused)["errors"]
    assert fault["pointer"] == "/cloudInit/networkConfig"
    assert told in fault["detail"]


def test_a_private_key_is_refused_by_its_name_and_repeated_nowhere(cloud: Cloud) -> None:
    key = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----\n"
    body = {"name": "no-key", "image": "tiny", "sshKeys": [KEY, key]}
    refused = cloud.api.request("POST", "/v1/instances", json=body)
    (fault,) = document(refused)["errors"]
    assert (refused.status_code, fault["pointer"]) == (400, "/sshKeys/1")
    assert "private key" in fault["detail"]
    assert CANARY not in refused.text
    assert not [service for service, log in cloud.stack.logs().items() if CANARY in log]


def test_a_user_data_that_seems_wrong_is_a_warning(cloud: Cloud) -> None:
    body = {
        "name": "warned",
        "image": "tiny",
        "packages": ["nginx"],
        "cloudInit": {"userdata": f"#cloud-config\npackages: [{CANARY}]\n"},
    }
    answer = cloud.api.request("POST", "/v1/instances", params={"validateOnly": "true"}, json=body)
    assert answer.status_code == 200, answer.text
    assert [warning for warning in document(answer)["warnings"] if "packages of its own" in warning]
    assert CANARY not in answer.text
