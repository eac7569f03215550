"""What is admitted, what is refused and by which rule."""

import json
import struct
import subprocess
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_store.admission import HEAD_BYTES, Disk, inspect, inspect_head
from image_store.errors import AdmissionError, UnknownFormatError, UnsafeImageError
from image_store.image import DiskFormat
from image_store_disks import HUGE, Bytes, Sparse, converted, patched, qcow2, raw_disk

MIB = 2**20


def admit(content: bytes, limit: int = HUGE) -> Disk:
    return inspect(Bytes(content), limit)


def rule_of(content: bytes, limit: int = HUGE) -> str:
    with pytest.raises(UnsafeImageError) as caught:
        admit(content, limit)
    return caught.value.rule


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-o", "compat=0.10"),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "lazy_refcounts=on"),
        ("-o", "refcount_bits=1"),
        ("-o", "compression_type=zstd"),
        ("-o", "extended_l2=on"),
        ("-o", "preallocation=metadata"),
        ("-o", "preallocation=falloc"),
    ],
)
def test_what_qemu_img_creates_is_admitted(options: tuple[str, ...]) -> None:
    assert admit(qcow2(*options)) == Disk(DiskFormat.QCOW2, 4 * MIB)


@pytest.mark.parametrize(
    "options", [(), ("-c",), ("-c", "-o", "compression_type=zstd"), ("-o", "extended_l2=on")]
)
def test_a_converted_disk_with_data_is_admitted(options: tuple[str, ...]) -> None:
    assert admit(converted(*options)) == Disk(DiskFormat.QCOW2, 2 * MIB)


def test_a_raw_disk_with_a_partition_table_is_admitted() -> None:
    assert admit(raw_disk(MIB)) == Disk(DiskFormat.RAW, MIB)


def test_a_raw_disk_with_a_guid_partition_table_alone_is_admitted() -> None:
    assert admit(bytes(512) + b"EFI PART" + bytes(2040)).format is DiskFormat.RAW


def test_a_backing_file_is_refused() -> None:
    assert rule_of(qcow2("-b", "/etc/passwd", "-F", "raw", "-u")) == "backing_file"


def test_a_data_file_is_refused(tmp_path: Path) -> None:
    assert rule_of(qcow2("-o", f"data_file={tmp_path / 'data'}")) == "data_file"


def test_internal_snapshots_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(qcow2())
    subprocess.run(["qemu-img", "snapshot", "-c", "one", str(path)], check=True, timeout=30)
    assert rule_of(path.read_bytes()) == "internal_snapshots"


def test_a_disk_whose_snapshots_were_deleted_is_admitted(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(qcow2())
    for option in ("-c", "-d"):
        subprocess.run(["qemu-img", "snapshot", option, "one", str(path)], check=True, timeout=30)
    assert admit(path.read_bytes()).format is DiskFormat.QCOW2


def test_dirty_bitmaps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(qcow2())
    subprocess.run(["qemu-img", "bitmap", "--add", str(path), "one"], check=True, timeout=30)
    assert rule_of(path.read_bytes()) == "dirty_bitmaps"


@pytest.mark.parametrize(
    ("offset", "form", "value", "rule"),
    [
        (4, "I", 1, "version"),
        (4, "I", 4, "version"),
        (8, "Q", 0x200, "backing_file"),
        (16, "I", 10, "backing_file"),
        (20, "I", 8, "cluster_bits"),
        (20, "I", 22, "cluster_bits"),
        (20, "I", 0xFFFFFFFF, "cluster_bits"),
        (24, "Q", 0, "virtual_size"),
        (24, "Q", 1000, "virtual_size"),
        (24, "Q", 1 << 63, "virtual_size"),
        (32, "I", 1, "encryption"),
        (32, "I", 2, "encryption"),
        (36, "I", 0, "l1_table"),
        (36, "I", 0xFFFFFFFF, "l1_table"),
        (40, "Q", 0, "l1_table"),
        (40, "Q", 513, "l1_table"),
        (40, "Q", 1 << 40, "l1_table"),
        (40, "Q", (1 << 64) - 65536, "l1_table"),
        (48, "Q", 0, "refcount_table"),
        (48, "Q", 1 << 40, "refcount_table"),
        (56, "I", 0, "refcount_table"),
        (56, "I", 0xFFFFFFFF, "refcount_table"),
        (60, "I", 1, "internal_snapshots"),
        (64, "Q", 1, "internal_snapshots"),
        (64, "Q", 1 << 63, "internal_snapshots"),
        (72, "Q", 1 << 0, "dirty"),
        (72, "Q", 1 << 1, "corrupt"),
        (72, "Q", 1 << 2, "data_file"),
        (72, "Q", 1 << 3, "compression_type"),
        (72, "Q", 1 << 5, "incompatible_features"),
        (72, "Q", 1 << 63, "incompatible_features"),
        (88, "Q", 1 << 1, "data_file"),
        (96, "I", 7, "refcount_order"),
        (100, "I", 96, "header"),
        (100, "I", 105, "header"),
        (100, "I", 1 << 31, "header"),
        (104, "B", 1, "compression_type"),
        (104, "B", 2, "compression_type"),
        (112, "I", 0xE2792ACA, "backing_file"),
        (112, "I", 0x44415441, "data_file"),
        (112, "I", 0x0537BE77, "encryption"),
        (112, "I", 0x23852875, "dirty_bitmaps"),
        (112, "I", 0x12345678, "header_extension"),
        (116, "I", 0xFFFFFFF0, "header_extension"),
        (112, "I", 0, "header_extension"),
    ],
)
def test_each_faulty_field_of_the_header_breaks_its_rule(
    offset: int, form: str, value: int, rule: str
) -> None:
    assert rule_of(patched(qcow2(), offset, form, value)) == rule


@pytest.mark.parametrize("entry", [1 << 40, 0x10200, 65536 * 1000])
def test_an_l1_entry_that_leads_nowhere_is_refused(entry: int) -> None:
    content = converted()
    l1_offset = struct.unpack_from(">Q", content, 40)[0]
    assert rule_of(patched(content, l1_offset, "Q", entry)) == "l1_table"


def test_an_l2_table_that_is_used_twice_is_refused() -> None:
    content = qcow2("-o", "preallocation=metadata,cluster_size=512")
    l1_offset = struct.unpack_from(">Q", content, 40)[0]
    first = struct.unpack_from(">Q", content, l1_offset)[0]
    assert rule_of(patched(content, l1_offset + 8, "Q", first)) == "l1_table"


def test_a_huge_l1_table_takes_little_more_than_its_own_size() -> None:
    entries = 50_000
    content = qcow2("-o", "cluster_size=512", size="64K")
    content = content.ljust(len(content) + -len(content) % 512, b"\0")
    content = patched(content, 24, "Q", entries * 64 * 512)
    content = patched(patched(content, 36, "I", entries), 40, "Q", len(content))
    l1_end = len(content) + entries * 8
    l1_end += -l1_end % 512
    table = b"".join(struct.pack(">Q", l1_end + index * 512) for index in range(entries))
    source = Sparse((content + table).ljust(l1_end, b"\0"), l1_end + entries * 512)
    tracemalloc.start()
    try:
        assert inspect(source, HUGE).virtual_size_bytes == entries * 64 * 512
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * len(table)


@pytest.mark.parametrize("entry", [1 << 40, (1 << 63) | 0x10200, (1 << 62) | (1 << 40)])
def test_an_l2_entry_that_leads_nowhere_is_refused(entry: int) -> None:
    content = converted()
    l1_offset = struct.unpack_from(">Q", content, 40)[0]
    l2_offset = struct.unpack_from(">Q", content, l1_offset)[0] & 0x00FFFFFFFFFFFE00
    assert rule_of(patched(content, l2_offset, "Q", entry)) == "l2_table"


def test_a_qcow2_that_lost_its_end_is_refused() -> None:
    assert rule_of(converted()[: 5 * 65536]) in {"l1_table", "l2_table", "refcount_table"}


def test_a_disk_above_the_limit_is_refused() -> None:
    assert rule_of(qcow2(size="2M"), limit=MIB) == "virtual_size"
    assert rule_of(raw_disk(2 * MIB), limit=MIB) == "virtual_size"


def test_a_raw_disk_of_broken_sectors_is_refused() -> None:
    assert rule_of(raw_disk()[:-1]) == "raw_size"


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        (b"", "nothing"),
        (b"just some text, no disk\n" * 1000, "text"),
        (bytes(100_000), "empty disk"),
        (b"KDMV" + bytes(1000), "VMDK"),
        (b"# Disk DescriptorFile\nversion=1", "VMDK"),
        (b"<<< Oracle VM VirtualBox".ljust(0x40) + b"\x7f\x10\xda\xbe" + bytes(500), "VDI"),
        (b"vhdxfile" + bytes(1000), "VHDX"),
        (b"QED\0" + bytes(1000), "QED"),
        (b"LUKS\xba\xbe" + bytes(1000), "LUKS"),
        (b"\x1f\x8b\x08" + bytes(1000), "gzip"),
        (b"\xfd7zXZ\0" + bytes(1000), "xz"),
        (b"\x28\xb5\x2f\xfd" + bytes(1000), "zstd"),
        (bytes(0x8001) + b"CD001" + bytes(2000), "ISO 9660"),
        (raw_disk()[:-512] + b"conectix".ljust(512, b"\0"), "VHD"),
    ],
)
def test_what_is_no_disk_is_named(content: bytes, looks_like: str) -> None:
    with pytest.raises(UnknownFormatError, match=looks_like):
        admit(content)


def test_a_boot_signature_does_not_make_foreign_bytes_a_disk() -> None:
    with pytest.raises(UnknownFormatError, match="VMDK"):
        admit(b"KDMV" + raw_disk()[4:])


def test_a_disk_that_begins_with_the_magic_of_qcow2_is_no_raw_disk() -> None:
    with pytest.raises(UnsafeImageError):
        admit(b"QFI\xfb" + raw_disk()[4:])


def test_the_head_alone_shows_a_backing_file() -> None:
    head = qcow2("-b", "/etc/passwd", "-F", "raw", "-u")[:HEAD_BYTES]
    with pytest.raises(UnsafeImageError) as caught:
        inspect_head(head, HUGE)
    assert caught.value.rule == "backing_file"


@given(st.binary(max_size=4096), st.booleans())
def test_no_bytes_make_the_parser_fail_otherwise(content: bytes, magic: bool) -> None:
    try:
        admit((b"QFI\xfb\0\0\0\x03" if magic else b"") + content)
    except AdmissionError:
        return


_CHANGES = st.lists(st.tuples(st.integers(0, 519), st.integers(0, 255)), min_size=1, max_size=4)
_SAMPLES = st.sampled_from(
    [
        ("-o", "compat=0.10"),
        ("-o", "compat=1.1"),
        ("-o", "cluster_size=512"),
        ("-b", "/etc/passwd", "-F", "raw", "-u"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(_SAMPLES, _CHANGES)
def test_what_is_admitted_names_no_other_file_to_qemu_img(
    options: tuple[str, ...], changes: list[tuple[int, int]]
) -> None:
    content = bytearray(qcow2(*options))
    for offset, value in changes:
        content[offset] = value
    try:
        disk = admit(bytes(content))
    except AdmissionError:
        return
    if disk.format is DiskFormat.RAW:
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        answer = subprocess.run(
            ["qemu-img", "info", "-f", "qcow2", "--output=json", file.name],
            check=True,
            capture_output=True,
            timeout=30,
        )
    info = json.loads(answer.stdout)
    assert "backing-filename" not in info
    assert not info.get("encrypted")
    assert "data-file" not in info["format-specific"]["data"]
    assert info["virtual-size"] == disk.virtual_size_bytes
