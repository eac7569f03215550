"""The Packer templates: checked by the Packer that is installed, and the Debian one built and booted."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from guest_machine import machine, seed_disk

FOLDER = Path(__file__).resolve().parents[1]
TEMPLATES = ("variables.pkr.hcl", "images.pkr.hcl", "seed", "scripts")
DEBIAN_GUEST = FOLDER / "guests" / "debian" / "build"

BUILD_DEADLINE_S = 1800
AGENT_DEADLINE_S = 400.0

pytestmark = pytest.mark.skipif(
    shutil.which("packer") is None and not os.environ.get("CI"), reason="Packer is not installed"
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a file that can stand for a downloaded image as long as nothing boots it."""
    path = tmp_path / "cloud.qcow2"
    path.write_bytes(b"not booted")
    return path


def validate(tmp_path: Path, image: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    """Return what `packer validate` says, without the block that Debian's Packer does not know."""
    folder = tmp_path / "templates"
    folder.mkdir()
    for name in TEMPLATES:
        (folder / name).symlink_to(FOLDER / name)
    of_images = [f"{system}_{what}" for system in ("debian", "ubuntu") for what in ("image", "checksum")]
    given = dict(zip(of_images, [str(image), sha256(image)] * 2, strict=True))
    return subprocess.run(
        ["packer", "validate", *as_options([*(f"{k}={v}" for k, v in given.items()), *variables]), folder],
        capture_output=True,
        text=True,
        check=False,
    )


def as_options(variables: Sequence[str]) -> list[str]:
    """Return the variables as options of Packer."""
    return [part for variable in variables for part in ("-var", variable)]


def sha256(path: Path) -> str:
    """Return the digest of a file as Packer takes it."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "variables",
    [
        (),
        ("arch=arm64", "machine=virt", "accelerator=tcg"),
        ("arch=arm64", "machine=virt", "accelerator=hvf", "firmware=edk2-aarch64-code.fd"),
        ("user=builder", "disk_size=20G", "memory=2048"),
    ],
)
def test_the_templates_are_valid(tmp_path: Path, image: Path, variables: tuple[str, ...]) -> None:
    done = validate(tmp_path, image, *variables)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("arch=sparc", "amd64 or arm64"),
        ("accelerator=fast", "kvm, tcg or hvf"),
        ("user=Root User", "lower-case user name"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, image: Path, variable: str, said: str) -> None:
    done = validate(tmp_path, image, variable)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the image that the Debian template makes of this repository's own Debian guest."""
    made = subprocess.run([DEBIAN_GUEST], capture_output=True, text=True, check=True)
    base = Path(made.stdout.splitlines()[-1])
    output = tmp_path_factory.mktemp("packer") / "images"
    variables = [
        "accelerator=tcg",
        "disk_size=4G",
        f"debian_image={base}",
        f"debian_checksum={sha256(base)}",
        f"output={output}",
    ]
    done = subprocess.run(
        [FOLDER / "build", "-only=qemu.debian", *as_options(variables)],
        capture_output=True,
        text=True,
        timeout=BUILD_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return output / "debian-amd64" / "debian-amd64.qcow2"


@pytest.mark.full
@pytest.mark.real
def test_the_debian_image_answers_its_agent_and_keeps_nothing_of_its_build(
    built: Path, tmp_path: Path
) -> None:
    seed = seed_disk(
        tmp_path, user_data="#cloud-config\nhostname: fresh\n", meta_data="instance-id: i-after-packer\n"
    )
    with machine(built, tmp_path, seed=seed, memory_mib=1024, disk_mib=4096) as guest:
        guest.wait_agent(AGENT_DEADLINE_S)
        assert guest.exec("/usr/bin/cloud-init", "status", "--wait", timeout_s=AGENT_DEADLINE_S)[0] == 0
        # Everything of the new instance is there: cloud-init took the image for one that has never run.
        assert guest.ask_agent("guest-get-host-name")["host-name"] == "fresh"
        assert guest.exec("/bin/ls", "/etc/ssh/ssh_host_ed25519_key")[0] == 0
        # And nothing of the build: no user, no password, no right, no log, no key.
        assert guest.exec("/usr/bin/getent", "passwd", "packer") == (2, "")
        assert guest.exec("/usr/bin/awk", "-F:", "$2 !~ /^[!*]/", "/etc/shadow")[1] == ""
        left = ["/home/packer", "/etc/sudoers.d/00-packer", "/etc/ssh/sshd_config.d/00-packer.conf"]
        assert guest.exec("/bin/ls", "-d", *left, "/root/.packer-finish")[1] == ""
        assert "packer" not in guest.exec("/bin/grep", "-rls", "packer", "/etc", "/var/log")[1]
        assert guest.exec("/usr/bin/systemctl", "--failed", "--no-legend", "--plain") == (0, "")
