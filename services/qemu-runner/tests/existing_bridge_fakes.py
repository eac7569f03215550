"""Bridges of others in memory, for tests of what stands on them."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from qemu_runner.bridge_network import AttachedTap, Refused
from qemu_runner.existing_bridge import BridgeTapError

NO_BRIDGE = Refused(reason="there is no interface of that name.", fix="make the bridge.")


@dataclass
class FakeExistingBridges:
    """A host with one bridge, br0, that knows the neighbours it is told.

    Attributes:
        names: Bridges of the host.
        attached: Taps by their bridge.
        known: Addresses by bridge and MAC.
    """

    names: set[str] = field(default_factory=lambda: {"br0"})
    attached: list[tuple[str, str]] = field(default_factory=list)
    known: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    changed: Callable[[], None] = lambda: None

    async def refusal(self, bridge: str) -> Refused | None:
        return None if bridge in self.names else NO_BRIDGE

    async def attach(self, bridge: str, tap: str, *, queues: int = 1) -> AttachedTap:
        if bridge not in self.names:
            raise BridgeTapError(bridge, "it is gone.")
        self.attached.append((bridge, tap))
        return AttachedTap(tap, tuple(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) for _ in range(queues)))

    def neighbours(self, bridge: str, mac: str) -> tuple[str, ...]:
        return self.known.get((bridge, mac), ())

    async def run(self, changed: Callable[[], None]) -> NoReturn:
        self.changed = changed
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future that nobody sets was done")

    def learn(self, bridge: str, mac: str, *addresses: str) -> None:
        """Know a neighbour, and say so."""
        self.known[bridge, mac] = addresses
        self.changed()
