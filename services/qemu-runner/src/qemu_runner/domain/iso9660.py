"""A small ISO 9660 image with Rock Ridge names, as NoCloud seeds are. Pure.

One directory, read-only files, reproducible bytes: no time stamp, no name of whoever made it. busybox and
Debian mount it, and blkid finds its label.

Source: ECMA-119; IEEE P1281 (SUSP) and P1282 (Rock Ridge).
"""

import struct
from collections.abc import Mapping
from typing import Final

_SECTOR: Final = 2048
# As others pad: busybox gives up on a device that ends before the places where it looks for labels.
_PAD_SECTORS: Final = 150
_ROOT_SECTOR: Final = 20  # after the system area (16), the descriptors (2) and both path tables
_EPOCH: Final = bytes([126, 1, 1, 0, 0, 0, 0])  # 2026-01-01 in a directory record
_EPOCH_LONG: Final = b"2026010100000000\0"
_FILE_MODE: Final = 0o100444
_DIRECTORY_MODE: Final = 0o040555


def build_iso(label: str, files: Mapping[str, bytes]) -> bytes:
    """Return an image labelled `label` that holds `files` in its root.

    Raises:
        ValueError: There are too many files for one sector of directory, or a name is too long.
    """
    names = sorted(files)
    sector = _ROOT_SECTOR + 1
    records = [
        _record(
            b"\0", _ROOT_SECTOR, _SECTOR, directory=True, system_use=_susp_begin() + _posix(_DIRECTORY_MODE)
        )
    ]
    records.append(_record(b"\1", _ROOT_SECTOR, _SECTOR, directory=True, system_use=_posix(_DIRECTORY_MODE)))
    contents = []
    for number, name in enumerate(names):
        data = files[name]
        plain = f"FILE{number}.;1".encode()
        use = _posix(_FILE_MODE) + _alternate_name(name)
        records.append(_record(plain, sector, len(data), directory=False, system_use=use))
        padded = data + bytes(-len(data) % _SECTOR)
        contents.append(padded)
        sector += len(padded) // _SECTOR
    root = b"".join(records)
    if len(root) > _SECTOR:
        raise ValueError("too many files for one sector of directory")
    parts = (
        bytes(16 * _SECTOR),
        _primary_descriptor(label, sector + _PAD_SECTORS),
        _sector(b"\xffCD001\x01"),
        _sector(_path_table("<")),
        _sector(_path_table(">")),
        _sector(root),
    )
    return b"".join((*parts, *contents, bytes(_PAD_SECTORS * _SECTOR)))


def _sector(data: bytes) -> bytes:
    return data.ljust(_SECTOR, b"\0")


def _both16(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _both32(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)


def _record(name: bytes, sector: int, length: int, *, directory: bool, system_use: bytes = b"") -> bytes:
    body = _both32(sector) + _both32(length) + _EPOCH
    body += bytes([2 if directory else 0, 0, 0]) + _both16(1) + bytes([len(name)]) + name
    # The name is padded so that what follows begins at an even offset; the record's length is even.
    body += bytes((len(body) + 2) % 2) + system_use
    body += bytes(len(body) % 2)
    size = len(body) + 2
    if size > 255:
        raise ValueError("a file's name is too long")
    return bytes([size, 0]) + body


def _susp_begin() -> bytes:
    return b"SP" + bytes([7, 1, 0xBE, 0xEF, 0])


def _posix(mode: int) -> bytes:
    return b"PX" + bytes([36, 1]) + _both32(mode) + _both32(1) + _both32(0) + _both32(0)


def _alternate_name(name: str) -> bytes:
    text = name.encode()
    return b"NM" + bytes([5 + len(text), 1, 0]) + text


def _path_table(order: str) -> bytes:
    return bytes([1, 0]) + struct.pack(f"{order}I", _ROOT_SECTOR) + struct.pack(f"{order}H", 1) + b"\0\0"


def _primary_descriptor(label: str, sectors: int) -> bytes:
    def text(value: str, width: int) -> bytes:
        return value.encode("ascii").ljust(width)

    table_size = len(_path_table("<"))
    never = b"0" * 16 + b"\0"
    return _sector(
        b"\x01CD001\x01\0"
        + text("LINUX", 32)
        + text(label, 32)
        + bytes(8)
        + _both32(sectors)
        + bytes(32)
        + _both16(1)
        + _both16(1)
        + _both16(_SECTOR)
        + _both32(table_size)
        + struct.pack("<II", 18, 0)
        + struct.pack(">II", 19, 0)
        + _record(b"\0", _ROOT_SECTOR, _SECTOR, directory=True)
        + text("", 128) * 4
        + text("", 37) * 3
        + _EPOCH_LONG
        + _EPOCH_LONG
        + never
        + never
        + b"\x01\0"
    )
