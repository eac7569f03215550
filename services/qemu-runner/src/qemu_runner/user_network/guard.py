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

    def ensure_commands(self, resolver: ResolverPlan) -> list[dict[str, object]]:
        """Give one transaction that makes the guard stand as wanted, whatever stands now.

        A table is added first so that deleting it cannot fail: replacing everything is what makes
        the transaction mend any damage.
        """
        return [
            *self._fresh_table(),
            {
                "add": {
                    "chain": {
                        "family": FAMILY,
                        "table": self.table,
                        "name": CHAIN,
                        "type": "filter",
                        "hook": "output",
                        "prio": _PRIORITY,
                        "policy": "accept",
                    }
                }
            },
            *([self._rule(_dns_match(resolver), "accept")] if resolver.forward_to is not None else []),
            self._rule(_LOCAL_AND_NEW, "reject"),
            *(self._rule([_match({"meta": {"key": "oifname"}}, name), _NEW], "reject") for name in _ENGINES),
        ]

    def trial_commands(self) -> list[dict[str, object]]:
        """Give a transaction that uses every feature of the guard and leaves nothing.

        It stands under a name of its own: the guard itself must not vanish for an instant.
        """
        trial = GuardSpec(f"{self.owner} trial", self.uid_first, self.uid_last)
        chain: dict[str, object] = {"add": {"chain": {"family": FAMILY, "table": trial.table, "name": CHAIN}}}
        return [*trial._fresh_table(), chain, trial._rule(_LOCAL_AND_NEW, "reject"), *trial.remove_commands()]

    def remove_commands(self) -> list[dict[str, object]]:
        """Give one transaction that removes the guard, whether it stands or not."""
        table = {"table": {"family": FAMILY, "name": self.table}}
        return [{"add": table}, {"delete": table}]

    def _fresh_table(self) -> list[dict[str, object]]:
        return [*self.remove_commands(), {"add": {"table": {"family": FAMILY, "name": self.table}}}]

    def _rule(self, matches: list[dict[str, object]], verdict: str) -> dict[str, object]:
        uids = {"range": [self.uid_first, self.uid_last]}
        skuid = _match({"meta": {"key": "skuid"}}, uids)
        return {
            "add": {
                "rule": {
                    "family": FAMILY,
                    "table": self.table,
                    "chain": CHAIN,
                    "comment": self.comment,
                    "expr": [skuid, *matches, {"counter": None}, {verdict: None}],
                }
            }
        }


def stands(listing: dict[str, object], spec: GuardSpec) -> bool:
    """Read from `nft -j list tables` whether this owner's table is there."""
    entries = listing.get("nftables")
    if not isinstance(entries, list):
        return False
    tables = [entry.get("table") for entry in entries if isinstance(entry, dict)]
    return any(
        isinstance(table, dict) and (table.get("family"), table.get("name")) == (FAMILY, spec.table)
        for table in tables
    )


def _match(left: object, right: object) -> dict[str, object]:
    return {"match": {"op": "==", "left": left, "right": right}}


def _dns_match(resolver: ResolverPlan) -> list[dict[str, object]]:
    # The port is asked of UDP and TCP alike: an answer that was cut short is fetched again by TCP.
    return [
        _match({"payload": {"protocol": "ip", "field": "daddr"}}, str(resolver.forward_to)),
        _match({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp"]}),
        _match({"payload": {"protocol": "th", "field": "dport"}}, 53),
    ]


_NEW: dict[str, object] = {
    "match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"},
}
_LOCAL_AND_NEW = [_match({"fib": {"result": "type", "flags": "daddr"}}, "local"), _NEW]
_ENGINES = ("docker*", "br-*")
"""Bridges of a container engine: what it publishes is the host's, what hangs on them is not the
guests' business either (DESIGN: guests are forwarded to the world, never to Docker's networks)."""
