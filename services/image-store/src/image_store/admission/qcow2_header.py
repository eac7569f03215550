"""The qcow2 header: parsed, and held against the rules that need nothing but the first cluster.

Source: QEMU's docs/interop/qcow2.txt; the limits are those of QEMU's block/qcow2.h. Anything that leads the
program that opens the image to another file, that needs a key, or that this module does not know is refused:
what is not understood cannot be called safe.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from image_store.errors import UnsafeImageError

_V2: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_V3: Final = struct.Struct(">QQQII")
_V3_BYTES: Final = _V2.size + _V3.size
_VERSIONS: Final = (2, 3)
_CLUSTER_BITS: Final = range(9, 22)
_MAX_REFCOUNT_ORDER: Final = 6
_ZSTD: Final = 1

# Incompatible features: a program that does not know a bit must not open the image.
_DIRTY: Final = 1 << 0
_CORRUPT: Final = 1 << 1
_DATA_FILE: Final = 1 << 2
_COMPRESSION_TYPE: Final = 1 << 3
_EXTENDED_L2: Final = 1 << 4
_KNOWN_FEATURES: Final = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION_TYPE | _EXTENDED_L2
# Autoclear feature: the guest's disk is the data file as it is.
_RAW_DATA_FILE: Final = 1 << 1
_EXTENDED_L2_MIN_CLUSTER_BITS: Final = 14

_EXTENSION: Final = struct.Struct(">II")
_EXTENSION_END: Final = 0
_FEATURE_NAMES: Final = 0x6803F857
_REFUSED_EXTENSIONS: Final = {
    0xE2792ACA: ("backing_file", "names the format of a backing file"),
    0x44415441: ("data_file", "names an external data file"),
    0x0537BE77: ("encryption", "has an encryption header"),
    0x23852875: ("dirty_bitmaps", "carries dirty bitmaps"),
}


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """The fields that the tables are found and read with. Offsets are bytes in the file."""

    cluster_bits: int
    virtual_size_bytes: int
    l1_entries: int
    l1_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    extended_l2: bool

    @property
    def cluster_bytes(self) -> int:
        """Size of a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_bytes(self) -> int:
        """Size of an entry of a second-level table."""
        return 16 if self.extended_l2 else 8


def parse_header(head: bytes, max_virtual_bytes: int) -> Qcow2Header:
    """Return the header at the start of `head`, which holds the first cluster or its first 64 KiB.

    Raises:
        UnsafeImageError: A rule is broken; `rule` names it.
    """
    if len(head) < _V2.size:
        raise UnsafeImageError("header", "The qcow2 header is cut off.")
    (
        _magic,
        version,
        backing_offset,
        backing_bytes,
        cluster_bits,
        virtual_size_bytes,
        crypt_method,
        l1_entries,
        l1_offset,
        refcount_table_offset,
        refcount_table_clusters,
        snapshots,
        snapshots_offset,
    ) = _V2.unpack_from(head)
    if version not in _VERSIONS:
        raise UnsafeImageError("version", f"qcow2 version {version} is not supported, 2 and 3 are.")
    if backing_offset or backing_bytes:
        raise UnsafeImageError(
            "backing_file", "The image has a backing file; make it whole with `qemu-img convert` first."
        )
    if crypt_method:
        raise UnsafeImageError(
            "encryption", "The image is encrypted; decrypt it with `qemu-img convert` first."
        )
    if cluster_bits not in _CLUSTER_BITS:
        raise UnsafeImageError("cluster_bits", f"Clusters of 2^{cluster_bits} bytes are outside 2^9 to 2^21.")
    if virtual_size_bytes == 0 or virtual_size_bytes % 512 or virtual_size_bytes > max_virtual_bytes:
        raise UnsafeImageError(
            "virtual_size",
            f"The disk has {virtual_size_bytes} bytes; it must have whole sectors, some, and at most "
            f"{max_virtual_bytes} bytes.",
        )
    # The last snapshot's removal may leave the place of the table, which readers still check.
    if snapshots or snapshots_offset % (1 << cluster_bits) or snapshots_offset >> 62:
        raise UnsafeImageError(
            "internal_snapshots", "The image has internal snapshots; drop them with `qemu-img convert` first."
        )
    header_bytes, extended_l2 = _V2.size, False
    if version > _VERSIONS[0]:
        header_bytes, extended_l2 = _check_version_3(head, cluster_bits)
    _check_extensions(head, header_bytes, 1 << cluster_bits)
    return Qcow2Header(
        cluster_bits=cluster_bits,
        virtual_size_bytes=virtual_size_bytes,
        l1_entries=l1_entries,
        l1_offset=l1_offset,
        refcount_table_offset=refcount_table_offset,
        refcount_table_clusters=refcount_table_clusters,
        extended_l2=extended_l2,
    )


def _check_version_3(head: bytes, cluster_bits: int) -> tuple[int, bool]:
    """Return the length of the header and whether second-level entries are extended."""
    if len(head) < _V3_BYTES:
        raise UnsafeImageError("header", "The qcow2 header is cut off.")
    incompatible, _compatible, autoclear, refcount_order, header_bytes = _V3.unpack_from(head, _V2.size)
    if header_bytes < _V3_BYTES or header_bytes % 8 or header_bytes > min(1 << cluster_bits, len(head)):
        raise UnsafeImageError("header", f"A header of {header_bytes} bytes cannot be.")
    if incompatible & _DATA_FILE or autoclear & _RAW_DATA_FILE:
        raise UnsafeImageError("data_file", "The image keeps its data in another file.")
    if incompatible & _DIRTY:
        raise UnsafeImageError("dirty", "The image was not closed; run `qemu-img check -r all` first.")
    if incompatible & _CORRUPT:
        raise UnsafeImageError("corrupt", "The image is marked as corrupt.")
    if unknown := incompatible & ~_KNOWN_FEATURES:
        raise UnsafeImageError(
            "incompatible_features", f"Unknown incompatible features {unknown:#x} are set."
        )
    compression = head[_V3_BYTES] if header_bytes > _V3_BYTES else 0
    # The feature bit stands exactly where the type is not the default, zlib.
    if compression != (_ZSTD if incompatible & _COMPRESSION_TYPE else 0):
        raise UnsafeImageError("compression_type", f"Compression type {compression} is not zlib or zstd.")
    extended_l2 = bool(incompatible & _EXTENDED_L2)
    if extended_l2 and cluster_bits < _EXTENDED_L2_MIN_CLUSTER_BITS:
        raise UnsafeImageError("cluster_bits", "Clusters are too small for subclusters.")
    if refcount_order > _MAX_REFCOUNT_ORDER:
        raise UnsafeImageError("refcount_order", f"Reference counts of 2^{refcount_order} bits cannot be.")
    return header_bytes, extended_l2


def _check_extensions(head: bytes, begin: int, cluster_bytes: int) -> None:
    for kind in _extensions(head, begin, min(cluster_bytes, len(head))):
        if kind in _REFUSED_EXTENSIONS:
            rule, what = _REFUSED_EXTENSIONS[kind]
            raise UnsafeImageError(rule, f"The image {what}.")
        if kind != _FEATURE_NAMES:
            raise UnsafeImageError("header_extension", f"Unknown header extension {kind:#010x}.")


def _extensions(head: bytes, begin: int, end: int) -> Iterator[int]:
    """Yield the types of the header extensions up to the one that ends them."""
    offset = begin
    while offset + _EXTENSION.size <= end:
        kind, length = _EXTENSION.unpack_from(head, offset)
        if kind == _EXTENSION_END and not length:
            return
        yield kind
        offset += _EXTENSION.size + (length + 7) // 8 * 8
    if offset != end:
        raise UnsafeImageError(
            "header_extension", "The header extensions do not end within the first cluster."
        )
