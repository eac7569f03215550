"""What the runner asks of bridges that others made: the port that the real ones and the fake stand behind."""

from collections.abc import Callable
from typing import NoReturn, Protocol

from qemu_runner.bridge_network import AttachedTap, Refused


class ExistingBridges(Protocol):
    """All bridges of this host but the runner's own."""

    async def refusal(self, bridge: str) -> Refused | None:
        """Say why no guest can be put on `bridge`, and what to do about it; None: it can.

        Changes nothing: there is no such interface, it is no bridge, no CAP_NET_ADMIN, no /dev/net/tun.
        """

    async def attach(self, bridge: str, tap: str, *, queues: int = 1) -> AttachedTap:
        """Open a tap of this name, put it on the bridge and set it up. It vanishes with its last descriptor.

        Raises:
            BridgeTapError: If the bridge is gone or the host refused.
        """

    def neighbours(self, bridge: str, mac: str) -> tuple[str, ...]:
        """Return the IP addresses under which the host knows `mac` behind `bridge`, as last seen.

        It knows whom it has spoken to: a guest that only talks to others is not among them.
        """

    async def run(self, changed: Callable[[], None]) -> NoReturn:
        """Follow the host's table of neighbours, by its events; `changed` is called after every change."""
