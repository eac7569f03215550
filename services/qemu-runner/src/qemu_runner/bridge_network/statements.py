"""Words of libnftables JSON: expressions, and a table that is filled with sets, chains and rules.

Pure. It knows the grammar and no network.

Source: libnftables-json(5).
"""

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

Statement = dict[str, Any]
Command = dict[str, Any]


def match(left: Statement, right: object, op: str = "==") -> Statement:
    """Compare an expression with a value."""
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> Statement:
    """Give a property of the packet that is not in it, such as its interface."""
    return {"meta": {"key": key}}


def payload(protocol: str, field: str) -> Statement:
    """Give a field of a header."""
    return {"payload": {"protocol": protocol, "field": field}}


def concat(*parts: Statement) -> Statement:
    """Give several expressions as one key."""
    return {"concat": list(parts)}


def prefix(network: IPv4Network) -> Statement:
    """Give a network as a value."""
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def ct(key: str, value: object) -> Statement:
    """Ask connection tracking for one of several flags."""
    return match({"ct": {"key": key}}, value, "in")


def is_local(side: str) -> Statement:
    """Ask the routing table whether an address of the packet is one of this host's."""
    return match({"fib": {"result": "type", "flags": [side]}}, "local")


class Table:
    """One table and the commands that make it, in order.

    Args:
        family: `inet` or `bridge`.
        name: The table's.
        owner: Mark on each rule.
    """

    def __init__(self, family: str, name: str, owner: str) -> None:
        self._place = {"family": family, "table": name}
        # nft takes 128 bytes of comment at most.
        self._comment = f"qcontroller owner={owner}"[:120]
        self.commands: list[Command] = [{"add": {"table": {"family": family, "name": name}}}]

    def set(self, name: str, kind: str | list[str], elements: list[object] | list[str]) -> None:
        """Add a set."""
        self._add("set", {"name": name, "type": kind, **({"elem": elements} if elements else {})})

    def chain(self, name: str) -> None:
        """Add a chain that others jump to."""
        self._add("chain", {"name": name})

    def base_chain(self, name: str, kind: str, hook: str, priority: int) -> None:
        """Add a chain that the kernel enters; what no rule decides is accepted."""
        self._add("chain", {"name": name, "type": kind, "hook": hook, "prio": priority, "policy": "accept"})

    def rule(self, chain: str, *statements: Statement) -> None:
        """Add a rule behind the others of its chain."""
        self._add("rule", {"chain": chain, "comment": self._comment, "expr": list(statements)})

    def _add(self, kind: str, body: Mapping[str, object]) -> None:
        self.commands.append({"add": {kind: {**self._place, **body}}})
