"""What the Debian guest is made of: Debian 12 with systemd, cloud-init, guest agent and ssh.

Owns the recipe only. Works as root, or as a user who may have user namespaces (mmdebstrap decides); no mount
and no loop device: the root file system is filled by mke2fs, under fakeroot so that every owner is right.
"""

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

from guestbuild import bootdisk, imagecache
from guestbuild.commandline import build_image
from guestbuild.packages import SUITE, Package, PackageSource, kernel_of
from guestbuild.programs import run

IMAGE_NAME = "qcontroller-debian-12-amd64.qcow2"

HERE = Path(__file__).resolve().parent
ROOTFS = HERE / "rootfs"
CUSTOMIZE = HERE / "customize"

KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
PACKAGES = (
    KERNEL_METAPACKAGE,
    "initramfs-tools",
    "zstd",
    "systemd-sysv",
    "systemd-resolved",
    "libpam-systemd",
    "udev",
    "dbus",
    "cloud-init",
    "cloud-guest-utils",
    "fdisk",
    "e2fsprogs",
    "dosfstools",
    "qemu-guest-agent",
    "openssh-server",
    "sudo",
    "iproute2",
    "iputils-ping",
    "netbase",
    "procps",
    "less",
    "ca-certificates",
)

BOOT_BYTES = 128 * bootdisk.MIB
ROOT_BYTES = 2048 * bootdisk.MIB
DISK_SIGNATURE = 0x51434442  # "QCDB"
BOOT_DEVICE = f"PARTUUID={DISK_SIGNATURE:08x}-01"
ROOT_DEVICE = f"PARTUUID={DISK_SIGNATURE:08x}-02"
_TYPE_LINUX = 0x83

SYSLINUX_CFG = f"""\
DEFAULT debian
PROMPT 0
TIMEOUT 0
LABEL debian
  LINUX vmlinuz
  INITRD initrd
  APPEND root={ROOT_DEVICE} ro console=ttyS0,115200 loglevel=6 printk.time=1
"""

PROGRAMS = {
    **bootdisk.PROGRAMS,
    "apt-get": "apt",
    "mmdebstrap": "mmdebstrap",
    "fakeroot": "fakeroot",
    "mke2fs": "e2fsprogs",
    "tar": "tar",
}

# Runs under fakeroot: the owners that tar sets live as long as this one process tree.
_FILL = 'mkdir "$2" && tar -xpf "$1" -C "$2" && mke2fs -q -F -t ext4 -L root -d "$2" -E "offset=$4" "$3" "$5"'


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the image (or find it built) and print its path."""
    return build_image(
        arguments,
        description="Build a full Debian 12 guest with cloud-init as a qcow2 image, from Debian packages.",
        images={"amd64": IMAGE_NAME},
        recipe=imagecache.recipe_digest(
            [ROOTFS, CUSTOMIZE, HERE / "debian_recipe.py", HERE.parent / "guestbuild"]
        ),
        programs=PROGRAMS,
        resolve=resolve,
        make=make,
    )


def resolve(source: PackageSource) -> list[Package]:
    """Return the packages asked for by name; what they depend on is mmdebstrap's to find."""
    packages = source.resolve(PACKAGES)
    kernel = kernel_of(next(package for package in packages if package.name == KERNEL_METAPACKAGE))
    return [*packages, *source.resolve([kernel])]


def make(source: PackageSource, packages: Sequence[Package], workspace: Path) -> Path:
    """Make the image in ``workspace`` and return its path."""
    archive = workspace / "root.tar"
    print("installing Debian into an archive (mmdebstrap)", flush=True)
    bootstrap(source, packages, archive)

    print("filling the root file system", flush=True)
    disk = workspace / "disk.raw"
    boot = bootdisk.boot_partition(BOOT_BYTES)
    root = bootdisk.Partition(_TYPE_LINUX, boot.offset_bytes + boot.size_bytes, ROOT_BYTES)
    with disk.open("wb") as file:
        file.truncate(root.offset_bytes + root.size_bytes)
    fill_root_filesystem(disk, root, archive, workspace / "root")

    print("laying out the boot partition", flush=True)
    files = {name: workspace / name for name in ("vmlinuz", "initrd", "syslinux.cfg")}
    files["syslinux.cfg"].write_text(SYSLINUX_CFG, encoding="ascii")
    extract_kernel(archive, files)
    bootdisk.make_boot_filesystem(disk, boot, files, "QCBOOT")
    bootdisk.write_partition_table(disk, [boot, root], DISK_SIGNATURE)

    print("compressing the image", flush=True)
    image = workspace / IMAGE_NAME
    bootdisk.to_qcow2(disk, image, compress=True)
    return image


def bootstrap(source: PackageSource, packages: Sequence[Package], archive: Path) -> None:
    """Install Debian with the named packages into a tar archive."""
    mirrors = [] if source.apt_sources is None else [source.apt_sources]
    include = ",".join(package.name for package in packages)
    environment = {"FILES": str(ROOTFS), "ROOT_DEVICE": ROOT_DEVICE, "BOOT_DEVICE": BOOT_DEVICE}
    run(
        [
            "mmdebstrap", "--variant=minbase", "--architectures=amd64", f"--include={include}",
            # Documentation and translations are a third of the files.
            "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            f"--customize-hook={CUSTOMIZE}", SUITE, archive, *mirrors,
        ],
        environment=environment,
    )  # fmt: skip


def fill_root_filesystem(disk: Path, partition: bootdisk.Partition, archive: Path, scratch: Path) -> None:
    """Make the ext4 file system in ``partition`` of ``disk`` from ``archive``, owners included."""
    size = f"{partition.size_bytes // 1024}k"
    faked = [] if os.geteuid() == 0 else ["fakeroot", "--"]
    run([*faked, "sh", "-ec", _FILL, "fill", archive, scratch, disk, str(partition.offset_bytes), size])


def extract_kernel(archive: Path, files: dict[str, Path]) -> None:
    """Copy the newest kernel and initramfs out of ``archive``."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            for prefix, target in (("boot/vmlinuz-", "vmlinuz"), ("boot/initrd.img-", "initrd")):
                content = tar.extractfile(member) if name.startswith(prefix) and member.isfile() else None
                if content is not None:
                    files[target].write_bytes(content.read())
