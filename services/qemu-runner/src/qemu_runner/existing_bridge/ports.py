"""What this package asks of its surroundings, beside the links and taps that the own bridge has too.

Each port has the real adapter in `adapters/` and a fake in the unit tests.
"""

from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Somebody that the host has spoken to over an interface.

    Attributes:
        interface: The kernel's number of it.
        mac: Its hardware address, lower case.
        address: Its IP address.
    """

    interface: int
    mac: str
    address: str


class NeighbourTable(Protocol):
    """The host's table of neighbours (arp(7), ndp)."""

    def look(self) -> Awaitable[tuple[Neighbour, ...]]:
        """Return all that are known and not known to be gone; addresses of a link only are left out.

        Raises:
            BridgeTapError: If the kernel did not answer.
        """

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Give a stream that says when to look again."""
