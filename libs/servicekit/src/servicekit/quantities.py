"""Sizes and durations as the contracts write them: strings in specs, settings and query parameters."""

import re
from typing import Final

MIB: Final = 1024 * 1024
SIZE_PATTERN: Final = r"^[1-9][0-9]*([MGT](i?B)?)?$"
DURATION_PATTERN: Final = r"^[0-9]+(ms|s|m|h)?$"

_SIZE: Final = re.compile(r"^([1-9][0-9]{0,11})(?:([MGT])(?:i?B)?)?$")
_DURATION: Final = re.compile(r"^([0-9]{1,9})(ms|s|m|h)?$")
_MIB_PER_UNIT: Final = {None: 1, "M": 1, "G": 1024, "T": 1024 * 1024}
_SECONDS_PER_UNIT: Final = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class QuantityError(ValueError):
    """A size or duration that cannot be read; the message says what would be accepted."""


def parse_size_mib(text: str) -> int:
    """Return the MiB that `text` stands for: a bare number of MiB or "512M", "2G", "2GB", "2GiB", "1T".

    Units are always binary.

    Raises:
        QuantityError: `text` is none of these, zero included.
    """
    match = _SIZE.match(text)
    if match is None:
        raise QuantityError(f"{text!r} is not a size: give MiB as an integer, or a number with M, G or T")
    return int(match[1]) * _MIB_PER_UNIT[match[2]]


def parse_duration_s(text: str) -> float:
    """Return the seconds that `text` stands for: "90s", "5m", "2h", "250ms"; a bare integer is seconds.

    Raises:
        QuantityError: `text` is none of these.
    """
    match = _DURATION.match(text)
    if match is None:
        raise QuantityError(f"{text!r} is not a duration: give seconds, or a number with s, m or h")
    return int(match[1]) * _SECONDS_PER_UNIT[match[2]]
