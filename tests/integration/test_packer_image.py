"""What the Packer template makes of our Debian guest: built, looked into, uploaded and launched."""

import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest
from framework import guests
from framework.cloud import Cloud

pytestmark = [
    pytest.mark.full,
    pytest.mark.native("an image is built in minutes, and the same for both"),
    pytest.mark.skipif(
        shutil.which("packer") is None and not os.environ.get("CI"), reason="Packer is not installed"
    ),
]

_BUILD_S: Final = 1800
_READY_S: Final = 1500
_LOOKED_INTO: Final = ("etc", "home", "root", "var/lib/cloud", "var/lib/systemd", "var/log")
_SECTOR_BYTES: Final = 512
_PEOPLE: Final = range(1000, 65_534)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the image that the template makes; it is built with whatever Packer is installed."""
    base = guests.debian()
    output = tmp_path_factory.mktemp("packer") / "images"
    variables = {
        "accelerator": "tcg",
        "disk_size": "4G",
        "debian_image": base,
        "debian_checksum": f"sha256:{hashlib.sha256(base.read_bytes()).hexdigest()}",
        "output": output,
    }
    done = subprocess.run(
        [
            guests.ROOT / "packer" / "build",
            "-only=qemu.debian",
            *(word for name, value in variables.items() for word in ("-var", f"{name}={value}")),
        ],
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return output / "debian-amd64" / "debian-amd64.qcow2"


@pytest.fixture(scope="module")
def root(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the image's own files, copied out before anything has booted it."""
    folder = tmp_path_factory.mktemp("root")
    disk = folder / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, disk], check=True)
    with disk.open("rb") as file:
        table = file.read(_SECTOR_BYTES)
    # The second entry of the partition table: the root file system.
    (first_sector,) = struct.unpack_from("<I", table, 446 + 16 + 8)
    filesystem = f"{disk}?offset={first_sector * _SECTOR_BYTES}"
    for name in _LOOKED_INTO:
        target = folder / Path(name).parent
        target.mkdir(parents=True, exist_ok=True)
        copy = ["/usr/sbin/debugfs", "-R", f"rdump /{name} {target}", filesystem]
        subprocess.run(copy, check=True, capture_output=True)
    disk.unlink()
    return folder


def lines(file: Path) -> list[list[str]]:
    """Return the fields of a file of accounts."""
    return [line.split(":") for line in file.read_text(encoding="utf-8").splitlines()]


def test_no_user_and_no_password_is_left_in_it(root: Path) -> None:
    users = lines(root / "etc" / "passwd")
    assert users[0][0] == "root"
    assert [fields[0] for fields in users if int(fields[2]) in _PEOPLE] == []
    assert list((root / "home").iterdir()) == []
    hashes = [fields[1] for file in (root / "etc").glob("*shadow*") for fields in lines(file)]
    assert len(hashes) >= len(users)
    assert [word for word in hashes if word and word[0] not in "!*"] == []
    assert "" not in [fields[1] for fields in lines(root / "etc" / "shadow")]
    assert [path.name for path in (root / "etc" / "sudoers.d").iterdir()] == ["README"]
    keys = [path for path in root.rglob("authorized_keys*") if path.read_bytes().strip()]
    assert keys == []


def test_nothing_of_the_machine_that_it_was_built_in_is_left_in_it(root: Path) -> None:
    assert list((root / "etc" / "ssh").glob("ssh_host_*")) == []
    assert (root / "etc" / "machine-id").read_bytes() == b""
    assert not (root / "var" / "lib" / "systemd" / "random-seed").exists()
    assert [path for path in (root / "var" / "lib" / "cloud").rglob("*") if path.is_file()] == []
    assert list((root / "var" / "log" / "journal").iterdir()) == []
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    named = [path for path in files if b"packer" in path.read_bytes()]
    assert named == [], "files that name the user of the build, or the build"
    assert [path for path in root.rglob("*cloud-init*") if path.suffix in {".network", ".yaml"}] == []


def test_it_is_launched_and_begins_anew(cloud: Cloud, image: Path) -> None:
    cloud.upload("debian-packer", image)
    name = cloud.launch(
        image="debian-packer",
        vm={"cpus": 2, "memory": "1G", "disk": "5G"},
        cloudInit={"userdata": "#cloud-config\nhostname: fresh\n"},
        readiness={"all": [{"agent": {}}, {"cloudInit": "done"}, {"tcp": {"port": 22}}], "deadline": "600s"},
    )["name"]
    cloud.wait_ready(name, timeout_s=_READY_S)

    def shell(script: str) -> str:
        return str(cloud.exec(name, "/bin/sh", "-c", script)["stdout"])

    # cloud-init took it for one that has never run: name, keys, default user and disk are of this instance.
    assert shell("hostname; ls /etc/ssh/ssh_host_ed25519_key").split() == [
        "fresh",
        "/etc/ssh/ssh_host_ed25519_key",
    ]
    assert shell("getent passwd packer; id -u debian") == "1000\n"
    assert int(shell("df --output=size -BM /").split()[-1].rstrip("M")) > 4096
    assert shell("awk -F: '$2 !~ /^[!*]/' /etc/shadow") == ""
    cloud.delete(name)
    assert cloud.api.request("DELETE", "/v1/images/debian-packer").status_code == 204
