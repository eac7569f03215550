"""The pool of guests' addresses: given in turn, so that a released one is not handed out again at once.

Pure: whose address is whose is stored by the machines' owner, and the turn by the caller.
"""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from qemu_runner.bridge_network.errors import (
    AddressOutsideError,
    AddressPoolExhaustedError,
    AddressTakenError,
)

_GATEWAY_OFFSET = 1
_FIRST_GUEST_OFFSET = 2
_WIDEST, _NARROWEST = 16, 29


@dataclass(frozen=True, slots=True)
class AddressPool:
    """The addresses of one subnet: the first is the gateway's, the others are the guests'.

    Attributes:
        subnet: A private IPv4 network between /16 and /29, used nowhere else on this host.

    Raises:
        ValueError: If the subnet is wider or narrower than that.
    """

    subnet: IPv4Network

    def __post_init__(self) -> None:
        if not _WIDEST <= self.subnet.prefixlen <= _NARROWEST:
            raise ValueError(f"the bridge's subnet {self.subnet} is not between /{_WIDEST} and /{_NARROWEST}")

    @property
    def gateway(self) -> IPv4Address:
        """The bridge's own address."""
        return self.subnet.network_address + _GATEWAY_OFFSET

    @property
    def capacity(self) -> int:
        """How many guests there are addresses for; network, gateway and broadcast are none of them."""
        return self.subnet.num_addresses - _FIRST_GUEST_OFFSET - 1

    def has(self, address: IPv4Address) -> bool:
        """Tell whether an address is one of the guests'."""
        first = self.subnet.network_address + _FIRST_GUEST_OFFSET
        return first <= address < first + self.capacity

    def next(self, taken: Collection[IPv4Address], last: IPv4Address | None) -> IPv4Address:
        """Give the first free address whose turn comes after the last one given.

        Args:
            taken: Addresses in use.
            last: The last address that was given, or None if none is remembered.

        Raises:
            AddressPoolExhaustedError: If there is none left.
        """
        held = frozenset(taken)
        first = self.subnet.network_address + _FIRST_GUEST_OFFSET
        begin = int(last) - int(first) + 1 if last is not None and self.has(last) else 0
        for step in range(self.capacity):
            candidate = first + (begin + step) % self.capacity
            if candidate not in held:
                return candidate
        raise AddressPoolExhaustedError(str(self.subnet), self.capacity)

    def exactly(self, wanted: IPv4Address, taken: Collection[IPv4Address]) -> IPv4Address:
        """Give the address that was asked for.

        Raises:
            AddressOutsideError: If it is none of the guests'.
            AddressTakenError: If it is in use.
        """
        if not self.has(wanted):
            raise AddressOutsideError(wanted, f"it is not one of the guests' addresses of {self.subnet}.")
        if wanted in taken:
            raise AddressTakenError(wanted, "another machine has it.")
        return wanted
