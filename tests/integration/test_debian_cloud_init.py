"""What a whole cloud-init makes of a seed, seen from inside the full Debian guest."""

import base64
import gzip
import json

import pytest
from framework import guests
from framework.cloud import Cloud, document

pytestmark = pytest.mark.full

# Made by OpenSSH 9.2; their private halves are kept nowhere.
ASKED_FOR = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICnvNSUtMI4qBdkDs++uRNCRBb8ELEmU1gwqD/zv5S+J asked-for"
THE_USERS = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB3kaGLvRtqFZm7oUzHMDEtnB9Hd2ZTlMlAlMnnPDBkL the-users"
USER_DATA = f"""\
#cloud-config
# kept, with this comment
ssh_authorized_keys: ["{THE_USERS}"]
runcmd:
  - [touch, /run/user-data-ran]
"""


def test_the_guest_has_keys_name_packages_and_network_beside_a_user_data_of_bytes(cloud: Cloud) -> None:
    cloud.upload("debian-seed", guests.debian())
    packed = gzip.compress(USER_DATA.encode())
    instance = cloud.launch(
        image="debian-seed",
        vm={"cpus": 2, "memory": "1G", "disk": "4G"},
        cloudInit={"userdataBase64": base64.b64encode(packed).decode()},
        sshKeys=[ASKED_FOR],
        hostname="seeded.example.org",
        # It is there already: nothing has to be fetched.
        packages=["sudo"],
        readiness={"all": [{"agent": {}}], "deadline": "600s"},
    )
    name = instance["name"]
    assert (instance["sshKeys"], instance["hostname"], instance["packages"]) == (
        [ASKED_FOR], "seeded.example.org", ["sudo"],
    )  # fmt: skip
    cloud.wait_ready(name, timeout_s=590)
    done = cloud.exec(name, "/usr/bin/cloud-init", "status", "--wait", timeout="300s")
    said = cloud.exec(name, "/bin/cat", "/var/log/cloud-init-output.log")["stdout"]
    assert done["exitCode"] in {0, 2}, said

    def read(path: str) -> str:
        text: str = cloud.exec(name, "/bin/cat", path)["stdout"]
        return text

    keys = read("/home/debian/.ssh/authorized_keys").splitlines()
    assert {ASKED_FOR, THE_USERS} <= set(keys), "neither list takes the place of the other"
    assert cloud.exec(name, "/bin/hostname", "--short")["stdout"].strip() == "seeded"
    assert read("/etc/hostname").strip() == "seeded"
    # The user's, unpacked by cloud-init, byte for byte.
    raw = cloud.exec(name, "/usr/bin/base64", "-w0", "/var/lib/cloud/instance/user-data.txt")["stdout"]
    assert base64.b64decode(raw) in {packed, USER_DATA.encode()}
    assert cloud.exec(name, "/bin/ls", "/run/user-data-ran")["exitCode"] == 0
    assert "sudo" in read("/var/lib/cloud/instance/vendor-cloud-config.txt")
    installed = [line for line in read("/var/log/cloud-init.log").splitlines() if "'install', 'sudo'" in line]
    assert installed, "cloud-init has asked the package manager for it"
    mac = instance["status"]["nics"][0]["mac"]
    files = "cat /run/systemd/network/10-cloud-init-*.network /etc/systemd/network/10-cloud-init-*.network"
    network = cloud.exec(name, "/bin/sh", "-c", files)["stdout"]
    assert f"MACAddress={mac}" in network
    assert "DHCP=ipv4" in network
    assert json.loads(read("/run/cloud-init/result.json"))["v1"]["errors"] == [], said
    cloud.verb(name, "stop", timeout="120s")

    # Another first boot, of the same disk: another name, and the packages are taken away.
    patch = {"hostname": "another", "packages": None}
    changed = cloud.api.request("PATCH", f"/v1/instances/{name}", json=patch, headers={"Prefer": "wait=60"})
    assert (changed.status_code, document(changed)["packages"]) == (200, []), changed.text
    cloud.verb(name, "start")
    cloud.wait_ready(name, timeout_s=590)
    cloud.exec(name, "/usr/bin/cloud-init", "status", "--wait", timeout="300s")
    assert cloud.exec(name, "/bin/hostname")["stdout"].strip() == "another"
    assert ASKED_FOR in read("/home/debian/.ssh/authorized_keys")
    cloud.verb(name, "stop", timeout="120s")
    cloud.delete(name)
    assert cloud.api.request("DELETE", "/v1/images/debian-seed").status_code == 204
