"""Telling formats apart by their magic: to name what is refused, and to know a raw disk.

The signatures are those of the formats' specifications and of file(1).
"""

from typing import Final

QCOW2_MAGIC: Final = b"QFI\xfb"
SECTOR_BYTES: Final = 512

_FOREIGN: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"KDMV", "a VMDK disk"),
    (0, b"COWD", "a VMDK disk"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI disk"),
    (0, b"vhdxfile", "a VHDX disk"),
    (0, b"conectix", "a VHD disk"),
    (0, b"QED\0", "a QED disk"),
    (0, b"WithoutFreeSpace", "a Parallels disk"),
    (0, b"WithouFreSpacExt", "a Parallels disk"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"BZh", "bzip2 data; unpack it first"),
    (0, b"\xfd7zXZ\0", "xz data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data"),
    (0, b"\x04\x22\x4d\x18", "lz4 data; unpack it first"),
    (0, b"PK\x03\x04", "a zip archive; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"%PDF", "a PDF document"),
)
# An El Torito CD starts only as a CD; a hybrid one has a partition table too and is a raw disk.
_ISO9660: Final = (0x8001, b"CD001")
_BOOT_SIGNATURE: Final = (510, b"\x55\xaa")
# GPT's header is in the second sector, whatever the size of a sector is.
_GPT: Final = ((512, b"EFI PART"), (4096, b"EFI PART"))


def foreign_format(head: bytes) -> str | None:
    """Return what `head` begins, where that is a known format that is no disk for us."""
    return next((name for offset, magic, name in _FOREIGN if _has(head, offset, magic)), None)


def has_partition_table(head: bytes) -> bool:
    """Tell whether `head` begins a raw disk: a boot signature (MBR, or any boot sector) or a GPT."""
    return _has(head, *_BOOT_SIGNATURE) or any(_has(head, *gpt) for gpt in _GPT)


def describe_unknown(head: bytes) -> str:
    """Return a few words on bytes of no known format."""
    if not head:
        return "nothing: there are no bytes"
    if _has(head, *_ISO9660):
        return "an ISO 9660 image without a partition table"
    if not head.strip(b"\0"):
        return "an empty disk without a partition table"
    if all(byte in b"\t\n\r\f\x1b" or byte >= 0x20 for byte in head):
        return "text"
    return "data without a partition table"


def _has(head: bytes, offset: int, magic: bytes) -> bool:
    return head[offset : offset + len(magic)] == magic
