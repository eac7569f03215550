"""The tables of a qcow2 image: everything they point to must lie in the file, and be sane in number.

Reference counts themselves are not read: they matter to writers, and nobody writes to a stored blob.
"""

import sys
from array import array
from typing import Final

from image_store.admission.qcow2_header import Qcow2Header
from image_store.admission.source import ByteSource
from image_store.errors import UnsafeImageError

# QEMU's own limits (block/qcow2.h): QCOW_MAX_L1_SIZE and QCOW_MAX_REFTABLE_SIZE.
_MAX_L1_BYTES: Final = 32 * 1024 * 1024
_MAX_REFCOUNT_TABLE_BYTES: Final = 8 * 1024 * 1024
_L1_ENTRY_BYTES: Final = 8
_OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED: Final = 1 << 62


def check_tables(source: ByteSource, header: Qcow2Header) -> None:
    """Walk the first and second level tables of the image in `source`. Blocks while it reads.

    A second-level table is read once: two references to one can only come from damage or from an attempt to
    make readers work for ever, since there are no internal snapshots.

    Raises:
        UnsafeImageError: Rule `refcount_table`, `l1_table` or `l2_table`.
    """
    _check_place(
        source,
        header,
        "refcount_table",
        header.refcount_table_offset,
        header.refcount_table_clusters * header.cluster_bytes,
        _MAX_REFCOUNT_TABLE_BYTES,
    )
    l2_reach_bytes = header.cluster_bytes // header.l2_entry_bytes * header.cluster_bytes
    if header.l1_entries < -(-header.virtual_size_bytes // l2_reach_bytes):
        raise UnsafeImageError("l1_table", f"{header.l1_entries} L1 entries are too few for the disk's size.")
    l1_bytes = header.l1_entries * _L1_ENTRY_BYTES
    _check_place(source, header, "l1_table", header.l1_offset, l1_bytes, _MAX_L1_BYTES)
    seen = _Clusters(source.size_bytes // header.cluster_bytes)
    for entry in _numbers(source.read_at(header.l1_offset, l1_bytes)):
        offset = entry & _OFFSET_MASK
        if not offset:
            continue
        if (
            offset % header.cluster_bytes
            or offset + header.cluster_bytes > source.size_bytes
            or not seen.take(offset // header.cluster_bytes)
        ):
            raise UnsafeImageError("l1_table", f"An L1 entry points to {offset}, where no L2 table can be.")
        _check_l2(source.read_at(offset, header.cluster_bytes), header, source.size_bytes)


class _Clusters:
    """Marks clusters of a file: one bit each, since a hostile L1 table names millions of them."""

    def __init__(self, clusters: int) -> None:
        self._bits = bytearray(clusters // 8 + 1)

    def take(self, cluster: int) -> bool:
        """Mark `cluster`; False if it was marked already."""
        byte, bit = divmod(cluster, 8)
        if self._bits[byte] >> bit & 1:
            return False
        self._bits[byte] |= 1 << bit
        return True


def _check_place(
    source: ByteSource, header: Qcow2Header, rule: str, offset: int, length: int, limit: int
) -> None:
    # Offset 0 is the header itself.
    inside = 0 < offset <= source.size_bytes - length
    if not inside or offset % header.cluster_bytes or not 0 < length <= limit:
        raise UnsafeImageError(rule, f"A table of {length} bytes at {offset} cannot be in this file.")


def _check_l2(table: bytes, header: Qcow2Header, file_bytes: int) -> None:
    if not table.strip(b"\0"):
        return
    stride = header.l2_entry_bytes // 8
    # A compressed cluster's offset is as wide as its length leaves (qcow2.txt, Compressed Clusters).
    compressed_mask = (1 << (62 - (header.cluster_bits - 8))) - 1
    unaligned = header.cluster_bytes - 1
    for entry in _numbers(table)[::stride]:
        if not entry:
            continue
        if entry & _COMPRESSED:
            offset, misplaced = entry & compressed_mask, 0
        else:
            offset = entry & _OFFSET_MASK
            misplaced = offset & unaligned
        if misplaced or offset >= file_bytes:
            raise UnsafeImageError(
                "l2_table", f"An L2 entry points to {offset}, outside of the file's clusters."
            )


def _numbers(table: bytes) -> "array[int]":
    numbers = array("Q", table)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
