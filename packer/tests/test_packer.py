"""The Packer templates, checked by the Packer that is installed; tests/integration builds the Debian one."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1]
TEMPLATES = ("variables.pkr.hcl", "images.pkr.hcl", "seed", "scripts")

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
