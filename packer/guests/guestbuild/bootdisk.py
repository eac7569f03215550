"""A disk that boots: MBR, one FAT16 partition with syslinux (PC BIOS) or an EFI loader, and what follows it.

Owns the layout of raw image files. It works on files alone: no mount, no loop device, no privilege.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from guestbuild.programs import run

SECTOR_BYTES = 512
MIB = 1024 * 1024
BOOT_OFFSET_BYTES = MIB
MBR_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")

PROGRAMS = {
    "mkfs.fat": "dosfstools",
    "mcopy": "mtools",
    "syslinux": "syslinux",
    str(MBR_CODE): "syslinux-common",
    "qemu-img": "qemu-utils",
}
EFI_PROGRAMS = {"mkfs.fat": "dosfstools", "mcopy": "mtools", "qemu-img": "qemu-utils"}

_MBR_CODE_BYTES = 440
_TYPE_FAT16_LBA = 0x0E
_TYPE_EFI_SYSTEM = 0xEF


@dataclass(frozen=True, slots=True)
class Partition:
    """One primary partition; sizes in bytes, multiples of a sector."""

    type: int
    offset_bytes: int
    size_bytes: int
    active: bool = False


def boot_partition(size_bytes: int) -> Partition:
    """Return the active FAT16 partition that starts at 1 MiB."""
    return Partition(_TYPE_FAT16_LBA, BOOT_OFFSET_BYTES, size_bytes, active=True)


def efi_partition(size_bytes: int) -> Partition:
    """Return the EFI system partition that starts at 1 MiB."""
    return Partition(_TYPE_EFI_SYSTEM, BOOT_OFFSET_BYTES, size_bytes)


def write_partition_table(disk: Path, partitions: Sequence[Partition], signature: int) -> None:
    """Write boot code and partition table into the first sector of ``disk``.

    Args:
        disk: Raw image.
        partitions: At most four.
        signature: The 32-bit disk signature; Linux makes ``PARTUUID=<8 hex digits>-NN`` of it.
    """
    # EFI runs no boot code.
    by_bios = any(partition.active for partition in partitions)
    code = (MBR_CODE.read_bytes()[:_MBR_CODE_BYTES] if by_bios else b"").ljust(_MBR_CODE_BYTES, b"\0")
    # CHS fields hold the "use LBA" value; every firmware of this century reads the LBA ones.
    table = b"".join(
        struct.pack(
            "<B3sB3sII",
            0x80 if partition.active else 0,
            b"\xfe\xff\xff",
            partition.type,
            b"\xfe\xff\xff",
            partition.offset_bytes // SECTOR_BYTES,
            partition.size_bytes // SECTOR_BYTES,
        )
        for partition in partitions
    )
    with disk.open("r+b") as file:
        file.write(code + struct.pack("<IH", signature, 0) + table.ljust(64, b"\0") + b"\x55\xaa")


def make_boot_filesystem(disk: Path, partition: Partition, files: Mapping[str, Path], label: str) -> None:
    """Make the FAT file system in ``partition`` of ``disk``, copy ``files`` to its root, install syslinux."""
    _make_filesystem(disk, partition, files, label)
    run(["syslinux", "-t", str(partition.offset_bytes), "--install", disk])


def make_efi_filesystem(disk: Path, partition: Partition, files: Mapping[str, Path], label: str) -> None:
    """Make the FAT file system in ``partition`` of ``disk``, copy ``files``; names may have directories."""
    _make_filesystem(disk, partition, files, label)


def _make_filesystem(disk: Path, partition: Partition, files: Mapping[str, Path], label: str) -> None:
    offset = partition.offset_bytes
    run([
        "mkfs.fat", "-F", "16", "-n", label, "-i", "51434744",
        "--offset", str(offset // SECTOR_BYTES), disk, str(partition.size_bytes // 1024),
    ])  # fmt: skip
    target = f"{disk}@@{offset}"
    parents = {str(parent) for name in files for parent in PurePosixPath(name).parents if str(parent) != "."}
    for parent in sorted(parents):
        run(["mmd", "-i", target, f"::{parent}"])
    for name, source in files.items():
        run(["mcopy", "-i", target, source, f"::{name}"])


def to_qcow2(disk: Path, image: Path, *, compress: bool = False) -> None:
    """Convert a raw disk to a qcow2 image without a backing file."""
    options = ["-c", "-o", "compression_type=zstd"] if compress else []
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, disk, image])
