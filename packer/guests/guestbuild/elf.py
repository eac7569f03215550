"""Which shared libraries a program needs, read from its own file: nothing of it is run.

So it serves for any architecture. Source: elf(5), the 64-bit little-endian form.
"""

import struct
from pathlib import Path

from guestbuild.errors import GuestIncompleteError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_IDENT = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


def needed(file: Path) -> list[str]:
    """Return the names of the libraries that ``file`` is linked with, in its order.

    Raises:
        GuestIncompleteError: It is no 64-bit little-endian ELF file.
    """
    data = file.read_bytes()
    if not data.startswith(_IDENT):
        raise GuestIncompleteError(f"{file.name} is no 64-bit ELF file")
    try:
        header = _HEADER.unpack_from(data)
        offset, size, count = header[5], header[9], header[10]
        segments = [_SEGMENT.unpack_from(data, offset + number * size) for number in range(count)]
        return _needed(data, segments)
    except (struct.error, ValueError) as exc:
        raise GuestIncompleteError(f"{file.name} is damaged: {exc}") from exc


def _needed(data: bytes, segments: list[tuple[int, ...]]) -> list[str]:
    names: list[int] = []
    strings = 0
    for kind, _, begin, _, _, length, *_ in segments:
        if kind != _PT_DYNAMIC:
            continue
        for tag, value in _DYNAMIC.iter_unpack(data[begin : begin + length - length % _DYNAMIC.size]):
            if tag == _DT_NULL:
                break
            if tag == _DT_NEEDED:
                names.append(value)
            elif tag == _DT_STRTAB:
                strings = _file_offset(segments, value)
    return [data[strings + name : data.index(b"\0", strings + name)].decode() for name in names]


def _file_offset(segments: list[tuple[int, ...]], address: int) -> int:
    """Return where in the file the byte is that is loaded at ``address``."""
    for kind, _, begin, virtual, _, length, *_ in segments:
        if kind == _PT_LOAD and virtual <= address < virtual + length:
            return begin + address - virtual
    raise ValueError(f"nothing is loaded at {address:#x}")


def library_closure(programs: list[Path], directories: list[Path]) -> dict[str, Path]:
    """Return the libraries that ``programs`` need, directly or not, each by the name that is asked for.

    Raises:
        GuestIncompleteError: One is in none of ``directories``.
    """
    found: dict[str, Path] = {}
    waiting = [(program, name) for program in programs for name in needed(program)]
    while waiting:
        program, name = waiting.pop()
        if name in found:
            continue
        path = next((one / name for one in directories if (one / name).is_file()), None)
        if path is None:
            raise GuestIncompleteError(f"{program.name} needs {name}, which no package of the guest holds")
        found[name] = path
        waiting += [(path, other) for other in needed(path)]
    return found
