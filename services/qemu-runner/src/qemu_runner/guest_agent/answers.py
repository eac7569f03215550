"""What a guest says, as values: cut to bounds, cleaned, and of the expected type or not there at all."""

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

from qemu_runner.domain.observation import Address, GuestInterface
from qemu_runner.errors import GuestAgentUnavailableError

MAX_ENTRIES: Final = 64
"""How many of anything are taken: users, interfaces, addresses, filesystems."""

_MAX_TEXT: Final = 256
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_UINT64: Final = 2**64
# The last second of the year 9999, which datetime and protobuf can tell.
_MAX_TIME_S: Final = 253_402_300_799


def member(answer: object, key: str) -> object:
    """Return a member of what should be an object; None where it is none or lacks it."""
    return answer.get(key) if isinstance(answer, dict) else None


def text(answer: object, key: str) -> str:
    """Return a member that should be text, printable and at most 256 characters; "" where it is none."""
    value = member(answer, key)
    return clean(value) if isinstance(value, str) else ""


def clean(value: str) -> str:
    """Return the printable part of the first 256 characters."""
    return "".join(character for character in value[:_MAX_TEXT] if character.isprintable())


def entries(answer: object) -> Iterable[Mapping[str, Any]]:
    """Return the objects in what should be a list, 64 at most."""
    listed = answer[:MAX_ENTRIES] if isinstance(answer, list) else ()
    return [entry for entry in listed if isinstance(entry, dict)]


def size(answer: object, key: str) -> int | None:
    """Return a member that should be an amount; None for what is not told, -1 and 2^64-1 included."""
    value = member(answer, key)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    # QEMU and drivers write "unknown" as all ones.
    return value if 0 <= value < _UINT64 - 1 else None


def real(value: object) -> float | None:
    """Return a finite number that is not negative, below a million; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1_000_000 and math.isfinite(value) else None


def moment(answer: object, key: str) -> datetime | None:
    """Return a member that should be seconds since 1970, fractions allowed."""
    value = member(answer, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_TIME_S:
        return None
    return datetime.fromtimestamp(value, UTC)


def process_id(answer: object) -> int:
    """Return the id of a process that the agent has started.

    Raises:
        GuestAgentUnavailableError: It is none.
    """
    return _identifier(answer, "pid")


def handle(answer: object) -> int:
    """Return the handle of a file that the agent has opened.

    Raises:
        GuestAgentUnavailableError: It is none.
    """
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < 2**63:
        raise GuestAgentUnavailableError("its answer is of the wrong shape")
    return answer


def content(value: object, most: int) -> bytes:
    """Return what should be base64, at most `most` bytes of it; nothing where it is none."""
    if not isinstance(value, str):
        return b""
    try:
        # Whole groups of four characters: what is beyond is not decoded to be thrown away.
        return base64.b64decode(value[: (most + 2) // 3 * 4])[:most]
    except (ValueError, binascii.Error):
        return b""


def interfaces(answer: object) -> tuple[GuestInterface, ...]:
    """Return the interfaces that have a hardware address."""
    found = []
    for entry in entries(answer):
        mac = text(entry, "hardware-address").lower()
        if _MAC.fullmatch(mac):
            listed = (address(text(one, "ip-address")) for one in entries(entry.get("ip-addresses")))
            known = tuple(one for one in listed if one is not None)
            found.append(GuestInterface(mac, known, text(entry, "name")))
    return tuple(found)


def address(value: str) -> Address | None:
    """Return an address as the agent's word; None for what is none."""
    try:
        parsed = ip_address(value)
    except ValueError:
        return None
    return Address(str(parsed), f"ipv{parsed.version}", "agent")


def _identifier(answer: object, key: str) -> int:
    value = member(answer, key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise GuestAgentUnavailableError("its answer is of the wrong shape")
    return value
