"""The two looks at an upload: at its head while it comes, at all of it when it is there."""

from dataclasses import dataclass

from image_store.admission.formats import (
    QCOW2_MAGIC,
    SECTOR_BYTES,
    describe_unknown,
    foreign_format,
    has_partition_table,
)
from image_store.admission.qcow2_header import parse_header
from image_store.admission.qcow2_tables import check_tables
from image_store.admission.source import HEAD_BYTES, ByteSource
from image_store.errors import UnknownFormatError, UnsafeImageError
from image_store.image import DiskFormat


@dataclass(frozen=True, slots=True)
class Disk:
    """What was admitted."""

    format: DiskFormat
    virtual_size_bytes: int


def inspect_head(head: bytes, max_virtual_bytes: int) -> None:
    """Refuse early what the first `HEAD_BYTES` bytes (or all, if there are fewer) already show to be wrong.

    Raises:
        UnsafeImageError: A rule is broken.
        UnknownFormatError: It is neither qcow2 nor a raw disk.
    """
    if head.startswith(QCOW2_MAGIC):
        # By definition, whatever else it may be: a tool that probes would take it for one.
        parse_header(head, max_virtual_bytes)
        return
    if (name := foreign_format(head)) is not None:
        raise UnknownFormatError(name)
    if not has_partition_table(head):
        raise UnknownFormatError(describe_unknown(head))


def inspect(source: ByteSource, max_virtual_bytes: int) -> Disk:
    """Look at the whole of `source` and return the disk that it is. Blocks while it reads.

    Raises:
        UnsafeImageError: A rule is broken.
        UnknownFormatError: It is neither qcow2 nor a raw disk.
    """
    head = source.read_at(0, HEAD_BYTES)
    inspect_head(head, max_virtual_bytes)
    if head.startswith(QCOW2_MAGIC):
        header = parse_header(head, max_virtual_bytes)
        check_tables(source, header)
        return Disk(DiskFormat.QCOW2, header.virtual_size_bytes)
    size_bytes = source.size_bytes
    footer = source.read_at(max(0, size_bytes - SECTOR_BYTES), SECTOR_BYTES)
    if footer.startswith(b"conectix"):
        raise UnknownFormatError("a VHD disk of fixed size")
    if footer.startswith(b"koly"):
        raise UnknownFormatError("an Apple disk image")
    if size_bytes % SECTOR_BYTES:
        raise UnsafeImageError(
            "raw_size",
            f"A raw disk is a whole number of {SECTOR_BYTES} byte sectors, not {size_bytes} bytes.",
        )
    if size_bytes > max_virtual_bytes:
        raise UnsafeImageError(
            "virtual_size", f"The disk has {size_bytes} bytes, at most {max_virtual_bytes} are allowed."
        )
    return Disk(DiskFormat.RAW, size_bytes)
