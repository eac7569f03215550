"""What a program needs, read from its file alone."""

import struct
from pathlib import Path

import pytest
from guestbuild.elf import library_closure, needed
from guestbuild.errors import GuestIncompleteError

BASE = 0x400000


def elf(*names: str) -> bytes:
    """Return the smallest ELF file that is linked with these libraries."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    headers, dynamic = 64, 64 + 2 * 56
    size = 16 * (len(names) + 2)
    table = dynamic + size
    offset, entries = 1, b""
    for name in names:
        entries += struct.pack("<qQ", 1, offset)
        offset += len(name) + 1
    entries += struct.pack("<qQ", 5, BASE + table) + struct.pack("<qQ", 0, 0)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 183, 1, 0, headers, 0, 0, 64, 56, 2, 0, 0, 0
    )
    whole = table + len(strings)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, whole, whole, 4096)
    place = struct.pack("<IIQQQQQQ", 2, 6, dynamic, BASE + dynamic, BASE + dynamic, size, size, 8)
    return header + load + place + entries + strings


def test_the_names_are_told_in_order(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_bytes(elf("libc.so.6", "libz.so.1"))
    assert needed(file) == ["libc.so.6", "libz.so.1"]


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01", elf("libc.so.6")[:100]])
def test_what_is_no_program_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(GuestIncompleteError, match="odd"):
        needed(tmp_path / "odd")


def test_what_libraries_need_is_needed_too_and_each_once(tmp_path: Path) -> None:
    first, second = tmp_path / "usr", tmp_path / "lib"
    first.mkdir()
    second.mkdir()
    (tmp_path / "program").write_bytes(elf("liba.so", "libc.so"))
    (first / "liba.so").write_bytes(elf("libc.so"))
    (second / "libc.so").write_bytes(elf())
    found = library_closure([tmp_path / "program"], [first, second])
    assert found == {"liba.so": first / "liba.so", "libc.so": second / "libc.so"}


def test_a_library_that_no_package_holds_is_named(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(elf("libmissing.so.3"))
    with pytest.raises(GuestIncompleteError, match=r"program needs libmissing\.so\.3"):
        library_closure([tmp_path / "program"], [tmp_path])
