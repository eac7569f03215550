"""A name and a subnet for a bridge that collide with nothing on this host, for stacks that come and go.

Chosen at random among many, so that stacks started at the same moment do not choose the same.
"""

import secrets
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

# /24s of a range that neither qc0 nor the user network begins in.
_RANGE: Final = IPv4Network("10.128.0.0/10")
_PREFIX: Final = 24
_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class BridgeChoice:
    """A bridge that can be made: its name and its subnet."""

    name: str
    subnet: str


def choose_bridge(routes: Path = Path("/proc/net/route")) -> BridgeChoice:
    """Return a bridge that this host has nothing like; `routes` is its table (proc(5)).

    Raises:
        OSError: The table cannot be read.
        LookupError: Every subnet of the range seems to be taken.
    """
    taken = taken_networks(routes.read_text(encoding="ascii"))
    for _ in range(_TRIES):
        number = secrets.randbelow(2 ** (_PREFIX - _RANGE.prefixlen))
        first = _RANGE.network_address + number * 2 ** (32 - _PREFIX)
        subnet = IPv4Network((first, _PREFIX))
        if not any(subnet.overlaps(network) for network in taken):
            return BridgeChoice(f"qc-{secrets.token_hex(3)}", str(subnet))
    raise LookupError(f"no /{_PREFIX} of {_RANGE} is free on this host")


def taken_networks(table: str) -> list[IPv4Network]:
    """Return the destinations of a table of routes, but for the default one."""
    found = []
    for line in table.splitlines()[1:]:
        columns = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(columns[at]), "little") for at in (1, 7))
        if mask:
            found.append(IPv4Network((destination, mask.bit_count())))
    return found
