"""Disks of any size that are never whole in memory."""

import os
from collections.abc import Iterator
from typing import Final

_MIB: Final = 2**20


def raw_disk(size_mib: int) -> Iterator[bytes]:
    """Yield a raw disk with a partition table, one MiB at a time."""
    first = bytearray(_MIB)
    first[510:512] = b"\x55\xaa"
    first[446:462] = (
        bytes([0x80, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
    )
    block = os.urandom(_MIB)
    yield bytes(first)
    for _ in range(size_mib - 1):
        yield block
