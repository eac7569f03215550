"""The bytes of a qcow2 overlay's header. Pure.

Writing an empty overlay takes a hundredth of a millisecond; qemu-img needs eight.

Source: QEMU, docs/interop/qcow2.txt.
"""

import struct
from typing import Final

from qemu_runner.domain.machine import DiskFormat

_MAGIC: Final = 0x514649FB
_VERSION: Final = 3
_CLUSTER_BITS: Final = 16
_CLUSTER: Final = 1 << _CLUSTER_BITS
_REFCOUNT_ORDER: Final = 4  # 16-bit counts
_HEADER_LENGTH: Final = 104
_BACKING_FORMAT: Final = 0xE2792ACA
# One entry of the L1 table leads to a cluster of L2 entries, of which each leads to a cluster.
_L1_REACH: Final = _CLUSTER // 8 * _CLUSTER
_L1_OFFSET_CLUSTERS: Final = 3  # after header, refcount table, refcount block
_DATA_FILE: Final = 1 << 2  # incompatible feature: the clusters are in another file, which the header names
HEADER_BYTES: Final = _HEADER_LENGTH
"""As much of a file as `overlay_size` looks at."""
MAX_SIZE_BYTES: Final = 64 << 40
"""One refcount block then counts all clusters of the overlay."""


def empty_overlay(size_bytes: int, backing_file: str, backing_format: DiskFormat) -> bytes:
    """Return a qcow2 file of `size_bytes` in which every cluster is the backing file's.

    Raises:
        ValueError: The size is zero, no multiple of 512 or beyond what is supported.
    """
    if size_bytes <= 0 or size_bytes % 512 or size_bytes > MAX_SIZE_BYTES:
        raise ValueError(f"{size_bytes} is not a size of a disk")
    l1_entries = -(-size_bytes // _L1_REACH)
    l1_clusters = -(-l1_entries * 8 // _CLUSTER)
    extension = struct.pack(">II", _BACKING_FORMAT, len(backing_format.value)) + backing_format.value.encode()
    extension += bytes(-len(extension) % 8) + bytes(8)  # padded, then the end of extensions
    backing = backing_file.encode()
    header = struct.pack(
        ">IIQIIQIIQQIIQQQQII",
        _MAGIC,
        _VERSION,
        _HEADER_LENGTH + len(extension),
        len(backing),
        _CLUSTER_BITS,
        size_bytes,
        0,  # not encrypted
        l1_entries,
        _L1_OFFSET_CLUSTERS * _CLUSTER,
        _CLUSTER,  # refcount table
        1,  # of one cluster
        0,  # no snapshots
        0,
        0,  # no incompatible, compatible, autoclear features
        0,
        0,
        _REFCOUNT_ORDER,
        _HEADER_LENGTH,
    )
    head = header + extension + backing
    used = _L1_OFFSET_CLUSTERS + l1_clusters
    table = struct.pack(">Q", 2 * _CLUSTER)
    counts = struct.pack(">H", 1) * used
    return b"".join(
        part.ljust(length, b"\0")
        for part, length in (
            (head, _CLUSTER),
            (table, _CLUSTER),
            (counts, _CLUSTER),
            (b"", l1_clusters * _CLUSTER),
        )
    )


def overlay_size(header: bytes) -> int:
    """Return the size of the disk whose overlay begins with `header`.

    The runner wrote it, but a QEMU that a guest took over may have written there since: what would lead
    qemu-img, which has the runner's privileges, to another file is refused.

    Raises:
        ValueError: It is no qcow2 that may be opened; the message says why.
    """
    if len(header) < _HEADER_LENGTH or struct.unpack_from(">II", header) != (_MAGIC, _VERSION):
        raise ValueError("it has no qcow2 header")
    (incompatible,) = struct.unpack_from(">Q", header, 72)
    if incompatible & _DATA_FILE:
        raise ValueError("its header names a data file")
    (size,) = struct.unpack_from(">Q", header, 24)
    return int(size)
