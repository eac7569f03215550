"""The nft ruleset that keeps guests away from every address of the host.

passt sends a guest's traffic through ordinary sockets of its own uid, so a rule on the sockets' uid
tells it from everything else. Pure: it builds libnftables JSON and reads nft's answers; applying
belongs to `adapters.nft`.

Source: libnftables-json(5), nft(8).
"""

import hashlib
from dataclasses import dataclass

from qemu_runner.user_network.resolver import ResolverPlan

FAMILY = "inet"
TABLE_PREFIX = "qcontroller"
CHAIN = "user_network"

_PRIORITY = -150
"""After connection tracking (-200), before destination NAT (-100): there a port published by a
container engine still shows the host's address that the guest asked for."""


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """Whose packets are judged.

    Attributes:
        owner: Mark on table and rules; one runner on this host has it.
        uid_first: First uid of the range that machines get their uids from.
        uid_last: Last uid of that range, inclusive.

    Raises:
        ValueError: If the range is empty or holds root.
    """

    owner: str
    uid_first: int
    uid_last: int

    def __post_init__(self) -> None:
        if not 0 < self.uid_first <= self.uid_last:
            raise ValueError(f"uids {self.uid_first}-{self.uid_last} are not a range without root")

    @property
    def table(self) -> str:
        """Name of this owner's table: deleting a table of one's own is one atomic step."""
        return f"{TABLE_PREFIX}_{hashlib.sha256(self.owner.encode()).hexdigest()[:8]}"

    @property
    def comment(self) -> str:
        """Mark on each rule; nft takes 128 bytes at most."""
        return f"qcontroller owner={self.owner}"[:120]
