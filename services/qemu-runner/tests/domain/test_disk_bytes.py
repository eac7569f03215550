"""Overlays and seeds, judged by the programs that read them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from qemu_runner.domain.iso9660 import build_iso
from qemu_runner.domain.machine import DiskFormat
from qemu_runner.domain.qcow2 import HEADER_BYTES, MAX_SIZE_BYTES, empty_overlay, overlay_size


def qemu_img(*words: str | Path) -> str:
    done = subprocess.run(
        ["qemu-img", *map(str, words)], check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout


@pytest.mark.parametrize("size", [512, 2**30, 10 * 2**30, 9 * 2**40, MAX_SIZE_BYTES])
def test_qemu_img_finds_no_fault_in_an_overlay(tmp_path: Path, size: int) -> None:
    overlay = tmp_path / "overlay.qcow2"
    overlay.write_bytes(empty_overlay(size, "base", DiskFormat.RAW))
    (tmp_path / "base").write_bytes(bytes(512))
    qemu_img("check", "-f", "qcow2", overlay)
    found = json.loads(qemu_img("info", "--output=json", overlay))
    assert (found["virtual-size"], found["backing-filename"], found["backing-filename-format"]) == (
        size,
        "base",
        "raw",
    )


def test_an_overlay_shows_its_base_and_zeroes_behind_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(b"\x5a" * 65_536)
    overlay = tmp_path / "overlay.qcow2"
    overlay.write_bytes(empty_overlay(131_072, "base", DiskFormat.RAW))
    qemu_img("convert", "-O", "raw", overlay, tmp_path / "seen")
    assert (tmp_path / "seen").read_bytes() == b"\x5a" * 65_536 + bytes(65_536)


@pytest.mark.parametrize("size", [0, -512, 513, MAX_SIZE_BYTES + 512])
def test_a_size_that_is_none_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="not a size"):
        empty_overlay(size, "base", DiskFormat.QCOW2)


@pytest.mark.skipif(shutil.which("isoinfo") is None, reason="isoinfo is not installed")
def test_isoinfo_reads_names_and_contents_of_a_seed(tmp_path: Path) -> None:
    files = {"meta-data": b"instance-id: x\n", "user-data": b"u" * 5000, "network-config": b""}
    image = tmp_path / "seed.iso"
    image.write_bytes(build_iso("cidata", files))
    for name, data in files.items():
        words = ["isoinfo", "-R", "-i", str(image), "-x", f"/{name}"]
        assert subprocess.run(words, check=True, capture_output=True, timeout=20).stdout == data


def test_the_label_stands_where_it_is_looked_for() -> None:
    image = build_iso("cidata", {"user-data": b""})
    assert image[32_808 : 32_808 + 32].rstrip() == b"cidata"


def test_the_same_files_make_the_same_bytes() -> None:
    assert build_iso("cidata", {"a": b"1", "b": b"2"}) == build_iso("cidata", {"b": b"2", "a": b"1"})


def test_too_many_files_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        build_iso("cidata", {f"file-{number}": b"" for number in range(40)})


def test_the_size_of_an_overlay_is_read_from_its_header() -> None:
    assert overlay_size(empty_overlay(2**30, "base", DiskFormat.RAW)[:HEADER_BYTES]) == 2**30


def test_an_overlay_that_names_a_data_file_is_refused(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/victim", overlay, "1M")
    with pytest.raises(ValueError, match="data file"):
        overlay_size(overlay.read_bytes()[:HEADER_BYTES])


@pytest.mark.parametrize("header", [b"", b"QFI\xfb", bytes(HEADER_BYTES)], ids=["empty", "short", "zeroes"])
def test_what_is_no_overlay_has_no_size(header: bytes) -> None:
    with pytest.raises(ValueError, match="no qcow2 header"):
        overlay_size(header)
