"""Disk images to upload: small, made by hand or by qemu-img."""

import functools
import struct
import subprocess
import tempfile
from pathlib import Path

SECTOR = 512
HUGE = 1 << 41


@functools.cache
def qcow2(*options: str, size: str = "4M") -> bytes:
    """Return what `qemu-img create` makes."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "disk.qcow2")
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), size], check=True, timeout=30
        )
        return path.read_bytes()


@functools.cache
def converted(*options: str, mib: int = 2) -> bytes:
    """Return a qcow2 with data, made by `qemu-img convert`."""
    with tempfile.TemporaryDirectory() as directory:
        source, path = Path(directory, "disk.raw"), Path(directory, "disk.qcow2")
        source.write_bytes(raw_disk(mib * 2**20, fill=b"payload "))
        subprocess.run(
            ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", *options, str(source), str(path)],
            check=True,
            timeout=30,
        )
        return path.read_bytes()


def raw_disk(size_bytes: int = 64 * 1024, fill: bytes = b"\0") -> bytes:
    """Return a raw disk with an MBR."""
    disk = bytearray((fill * (size_bytes // len(fill) + 1))[:size_bytes])
    disk[0:440] = b"\xfa" * 440
    disk[510:512] = b"\x55\xaa"
    return bytes(disk)


def patched(image: bytes, offset: int, form: str, value: int) -> bytes:
    """Return `image` with a big-endian number at `offset` changed."""
    changed = bytearray(image)
    struct.pack_into(">" + form, changed, offset, value)
    return bytes(changed)


class Sparse:
    """A `ByteSource` that begins with what it is given and goes on with zeroes."""

    def __init__(self, content: bytes, size_bytes: int) -> None:
        self._content = content
        self.size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size_bytes - offset)
        return self._content[offset : offset + length].ljust(length, b"\0")


class Bytes:
    """A `ByteSource` in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]
