"""The address plan: which private address the guest of one index gets.

passt would copy the host's own address into the guest, which makes the host unreachable as itself
and every guest alike. So each guest gets an address of its own, from a subnet that exists nowhere
but between passt and its guest. Pure: the index is stored by the machine's owner, never here.
"""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from qemu_runner.user_network.errors import AddressPlanExhaustedError

_BLOCK_PREFIX_LEN = 24
_GATEWAY_OFFSET = 2
_DNS_OFFSET = 3
_FIRST_GUEST_OFFSET = 16
_GUESTS_PER_BLOCK = 255 - _FIRST_GUEST_OFFSET


@dataclass(frozen=True, slots=True)
class GuestAddress:
    """What passt tells one guest by DHCP.

    Attributes:
        address: The guest's own address.
        prefix_len: Length of its network prefix, in bits.
        gateway: Next hop, played by passt.
        dns: Address in the same network that passt answers DNS on, if it has to forward.
    """

    address: IPv4Address
    prefix_len: int
    gateway: IPv4Address
    dns: IPv4Address


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """Numbers the guest addresses of a subnet, in blocks of /24 that each have a gateway.

    Attributes:
        subnet: A private IPv4 network of /24 or wider, used nowhere else on this host.

    Raises:
        ValueError: If the subnet is narrower than /24.
    """

    subnet: IPv4Network

    def __post_init__(self) -> None:
        if self.subnet.prefixlen > _BLOCK_PREFIX_LEN:
            raise ValueError(f"the user subnet {self.subnet} is narrower than /{_BLOCK_PREFIX_LEN}")

    @property
    def capacity(self) -> int:
        """How many guests the plan has addresses for."""
        blocks: int = 2 ** (_BLOCK_PREFIX_LEN - self.subnet.prefixlen)
        return blocks * _GUESTS_PER_BLOCK

    def at(self, index: int) -> GuestAddress:
        """Give the address of an index; the same index always gives the same address.

        Raises:
            ValueError: If the index is not between 0 and capacity - 1.
        """
        if not 0 <= index < self.capacity:
            raise ValueError(f"index {index} is outside {self.subnet} ({self.capacity} guests)")
        block, offset = divmod(index, _GUESTS_PER_BLOCK)
        base = self.subnet.network_address + block * 2 ** (32 - _BLOCK_PREFIX_LEN)
        return GuestAddress(
            address=base + _FIRST_GUEST_OFFSET + offset,
            prefix_len=_BLOCK_PREFIX_LEN,
            gateway=base + _GATEWAY_OFFSET,
            dns=base + _DNS_OFFSET,
        )

    def free_index(self, taken: Collection[int]) -> int:
        """Give the lowest index that no machine holds.

        Raises:
            AddressPlanExhaustedError: If there is none left.
        """
        held = frozenset(taken)
        for index in range(self.capacity):
            if index not in held:
                return index
        raise AddressPlanExhaustedError(str(self.subnet), self.capacity)
